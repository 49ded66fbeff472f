#!/usr/bin/env bash
# `make demo`: attention over 1,297 handwritten digits, for a person to watch.
#
#     tests/demo/demo.sh build/attentiond
#
# Starts the daemon on a free port with a folder of its own, talks to it with
# curl, shows the commands and what came back, stops it. Every step is also a
# check, so the exit status is 0 only when all of it was right. What takes more
# than curl (request bodies, pictures, judging a reply) is in digits.py.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
daemon=$(realpath "${1:?usage: demo.sh PATH/TO/attentiond}")
data=$here/../data/digits.csv
folder=$(mktemp -d "${TMPDIR:-/tmp}/attentiond-demo.XXXXXX")
pid=

finish() {
  local status=$?
  trap - EXIT
  if [ -n "$pid" ]; then
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" || true
  fi
  if [ "$status" -ne 0 ]; then
    echo "demo: FAILED" >&2
    [ -s "$folder/log" ] && { echo "demo: the daemon's last words:" && tail -n 5 "$folder/log"; } >&2
  fi
  rm -rf "$folder"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
  echo "   WRONG: $*" >&2
  exit 1
}

title() {
  printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

command_line() {
  printf '   %s$ %s%s\n' "$dim" "$*" "$plain"
}

digits() {
  "${PYTHON:-/usr/bin/python3}" "$here/digits.py" "$1" "$data"
}

# ask STATUS REPLY CURL-ARGUMENTS...: the reply goes to a file, its status must be STATUS
ask() {
  local expected=$1 reply=$2 status
  shift 2
  status=$(curl -sS --noproxy '*' --max-time 120 -o "$reply" -w '%{http_code}' "$@") ||
    fail "curl could not ask the daemon"
  [ "$status" = "$expected" ] || fail "status $status, not $expected: $(head -c 500 "$reply")"
}

# attend BODY REPLY: what `curl --json @BODY` does; older curls have no --json
attend() {
  ask 200 "$2" -H 'Content-Type: application/json' --data-binary "@$1" "$digits/attend"
}

start() {
  "$daemon" --listen-address 127.0.0.1 --listen-port 0 --port-file "$folder/port" >"$folder/log" 2>&1 &
  pid=$!
  for _ in {1..3000}; do
    [ -s port ] && port=$(<port) && return
    kill -0 "$pid" 2>/dev/null || fail "the daemon did not start"
    sleep 0.1
  done
  fail "the daemon was not listening after 300 s"
}

stop() {
  local status=0
  kill -TERM "$pid"
  wait "$pid" || status=$?
  pid=
  [ "$status" -eq 0 ] || fail "the daemon ended with status $status"
}

bold='' dim='' plain=''
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
fi

# the demo is about the defaults, not about what the caller's environment sets
for variable in "${!ATTENTIOND_@}"; do
  unset "$variable"
done
[ -z "${ATTN_TEST_KERNELS:-}" ] || export ATTENTIOND_KERNELS=$ATTN_TEST_KERNELS # see tests/run.py

cd "$folder"
digits bodies
start
digits=http://127.0.0.1:$port/v1/memories/digits
ask 200 ready.json "http://127.0.0.1:$port/readyz"

title "$("$daemon" --version): a memory of digits (key: 64 pixels, value: the label)"
command_line "digits=$digits"
command_line "curl -T digits.json \$digits"
ask 201 stored.json -T digits.json "$digits"
digits stored

title "500 digits it has never seen, in ten batches"
command_line "curl --json @batch-0.json \$digits/attend          # ... to batch-9.json"
before=$(date +%s%N)
for batch in {0..9}; do
  attend "batch-$batch.json" "reply-$batch.json"
done
after=$(date +%s%N)
digits accuracy
echo "   in $(((after - before) / 1000000)) ms, starting curl ten times included"

title "Where it looked: a query, the five keys with the largest weights, their ids"
command_line "curl --json @look.json \$digits/attend             # \"weights\": {\"top\": 5}"
attend look.json looked.json
digits look

title "The same request with another score is an average over the table ..."
command_line "curl --json @average.json \$digits/attend          # \"score\": \"constant\""
attend average.json averaged.json
digits average

title "... or a look-up by key, as in any database"
command_line "curl --json @exact.json \$digits/attend            # \"score\": \"exact\""
attend exact.json exactly.json
digits exact

title "The 500 queries under other scores: how many are right"
command_line "curl --json @all-0.json \$digits/attend            # ... to all-4.json"
for number in {0..4}; do
  attend "all-$number.json" "compared-$number.json"
done
digits compare

title "Stop: SIGTERM"
stop
echo "   exit status 0. All of it was right."
echo
echo "make run: the same memory at http://127.0.0.1:8080/v1/memories/digits, in RAM only"
