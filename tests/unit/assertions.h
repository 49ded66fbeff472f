/* Check's assertions, without what Check does for one that holds: it writes the
 * line into a temporary file, so as to name the last assertion that was well when a
 * test's process ends by a signal. That is a system call each: test_npy, which looks
 * at a million numbers one by one, took 7 s for them and 40 MB of the temporary
 * folder, and takes 0.05 s without, which sanitizers multiply. Suites run in one
 * process (support.h, unit.h), where a signal ends them all and nobody reads that
 * file; with CK_FORK=yes a crash is reported with the first line of its test.
 *
 * Rejected: one assertion behind each loop, with a flag; what failed, and where, is
 * worth a message of its own. */
#ifndef TESTS_UNIT_ASSERTIONS_H
#define TESTS_UNIT_ASSERTIONS_H

#include <check.h>

#define _mark_point(file, line) ((void)0)

#endif
