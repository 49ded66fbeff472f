"""The OpenAPI document is valid 3.1 in structure and tells the truth: every
route and code that there is and no other, and schemas that fit the requests
and replies of the real daemon."""

import re

import pytest

import harness
import oracle

ROUTES = [
    ("get", "/healthz"), ("get", "/readyz"), ("get", "/metrics"), ("get", "/openapi.json"),
    ("get", "/v1/memories"), ("put", "/v1/memories/{name}"), ("get", "/v1/memories/{name}"),
    ("delete", "/v1/memories/{name}"), ("post", "/v1/memories/{name}/attend"), ("post", "/v1/attend"),
]
PAIR = {"keys": [[1, 0], [0, 1]], "values": [[1], [2]]}


@pytest.fixture(scope="module")
def document(daemon):
    reply = daemon.get("/openapi.json")
    assert reply.status == 200
    assert reply.headers["Content-Type"].split(";")[0] in ("application/json", "application/vnd.oai.openapi+json")
    return reply.json


def operations(document):
    for path, item in document["paths"].items():
        for method in ("get", "put", "post", "delete", "patch", "head", "options", "trace"):
            if method in item:
                yield method, path, item, item[method]


def resolve(document, pointer):
    assert pointer.startswith("#/"), f"a reference outside the document: {pointer}"
    value = document
    for part in pointer[2:].split("/"):
        value = value[part.replace("~1", "/").replace("~0", "~")]
    return value


def walk(value, path=""):
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from walk(child, f"{path}/{key}")


def test_openapi_head(document):
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"] and document["info"]["version"]
    allowed = {"openapi", "info", "jsonSchemaDialect", "servers", "paths", "webhooks", "components", "security",
               "tags", "externalDocs"}
    assert set(document) <= allowed
    assert all(path.startswith("/") for path in document["paths"])
    components = {"schemas", "responses", "parameters", "examples", "requestBodies", "headers", "securitySchemes",
                  "links", "callbacks", "pathItems"}
    assert set(document.get("components", {})) <= components


def test_openapi_has_the_routes_and_no_other(daemon, document):
    have = {(method, path.replace("{NAME}", "{name}")) for method, path, _, _ in operations(document)}
    assert set(ROUTES) <= have
    for method, path in have - set(ROUTES):
        reply = daemon.request(method.upper(), re.sub(r"\{\w+\}", "absent", path))
        assert reply.status != 405 and not (reply.status == 404 and reply.json.get("code") == "not_found"), \
            f"{method} {path} is documented but not there"


def test_openapi_operations(document):
    identifiers = []
    for method, path, item, operation in operations(document):
        where = f"{method} {path}"
        identifiers.append(operation["operationId"])
        assert re.fullmatch(r"[a-z][A-Za-z0-9]*", operation["operationId"]), where
        assert operation.get("summary") or operation.get("description"), where
        parameters = [resolve(document, p["$ref"]) if "$ref" in p else p
                      for p in item.get("parameters", []) + operation.get("parameters", [])]
        assert len({(p["name"], p["in"]) for p in parameters}) == len(parameters), where
        for parameter in parameters:
            assert parameter["in"] in ("path", "query", "header", "cookie")
            assert ("schema" in parameter) != ("content" in parameter), where
        in_path = {p["name"] for p in parameters if p["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path)), where
        assert all(p["required"] is True for p in parameters if p["in"] == "path"), where
        assert operation["responses"], where
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5](\d\d|XX)|default", status), where
            response = resolve(document, response["$ref"]) if "$ref" in response else response
            assert response["description"], f"{where} {status}"
            for media in response.get("content", {}):
                assert re.fullmatch(r"[\w.+-]+/[\w.+*-]+", media)
        takes_body = method in ("put", "post", "patch") or operation["operationId"] == "deleteRows"
        if takes_body:
            body = operation["requestBody"]
            body = resolve(document, body["$ref"]) if "$ref" in body else body
            assert "application/json" in body["content"], where
            assert body["content"]["application/json"]["schema"], where
        else:
            assert "requestBody" not in operation, where
    assert len(set(identifiers)) == len(identifiers)


def test_openapi_references_and_schemas(document):
    kinds = {"null", "boolean", "object", "array", "number", "string", "integer"}
    for path, value in walk(document):
        if isinstance(value, dict) and isinstance(value.get("$ref"), str):
            resolve(document, value["$ref"])
        if re.search(r"/schemas/\w+$|/schema$", path) and isinstance(value, dict):
            for inner_path, inner in walk(value):
                if isinstance(inner, dict) and "type" in inner and not inner_path.endswith("/properties"):
                    given = inner["type"]
                    if isinstance(given, str):
                        assert given in kinds, f"{path}{inner_path}: {given}"
                    elif isinstance(given, list):
                        assert set(given) <= kinds
                    assert "nullable" not in inner, "nullable is of 3.0"
                if isinstance(inner, dict) and isinstance(inner.get("required"), list) and "properties" in inner:
                    assert set(inner["required"]) <= set(inner["properties"]), f"{path}{inner_path}"
    used = {value["$ref"] for _, value in walk(document) if isinstance(value, dict) and "$ref" in value}
    for section in document.get("components", {}):
        for name in document["components"][section]:
            assert f"#/components/{section}/{name}" in used, f"{section}/{name} is never used"


def test_openapi_lists_codes_scores_and_normalizations(document):
    header = (harness.REPOSITORY / "server/base/problem.h").read_text().replace("\\\n", "")
    codes = re.findall(r'X\([A-Z_]+,\s*\d+,\s*"([a-z_]+)"', header)
    texts = {str(value) for _, value in walk(document) if isinstance(value, str)}
    everything = " ".join(texts)
    assert len(codes) >= 25
    for word in (*codes, *oracle.SCORES, *oracle.NORMALIZATIONS):
        assert word in texts or re.search(rf"\b{word}\b", everything), f"{word} isn't in the document"


def check_schema(document, schema, value, where="reply"):
    """As much of JSON Schema as the document needs to be held to the replies."""
    if "$ref" in schema:
        return check_schema(document, resolve(document, schema["$ref"]), value, where)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            fits = []
            for option in schema[word]:
                try:
                    check_schema(document, option, value, where)
                    fits.append(option)
                except AssertionError:
                    pass
            assert fits if word == "anyOf" else len(fits) == 1, f"{where}: {value!r} fits {len(fits)} of {word}"
    for part in schema.get("allOf", []):
        check_schema(document, part, value, where)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    is_a = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if kinds:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert any(isinstance(value, is_a[kind]) if kind in is_a else
                   number and (kind == "number" or value == int(value)) for kind in kinds), f"{where}: {value!r}"
    if "enum" in schema:
        assert value in schema["enum"], f"{where}: {value!r}"
    if "const" in schema:
        assert value == schema["const"], where
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value), f"{where}: {sorted(value)}"
        for name, member in value.items():
            if name in schema.get("properties", {}):
                check_schema(document, schema["properties"][name], member, f"{where}/{name}")
            elif isinstance(schema.get("additionalProperties"), dict):
                check_schema(document, schema["additionalProperties"], member, f"{where}/{name}")
            else:
                assert schema.get("additionalProperties") is not False, f"{where}: {name} isn't declared"
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            check_schema(document, schema["items"], item, f"{where}/{index}")
    return None


def test_replies_fit_the_document(daemon, document, memory_name):
    path = f"/v1/memories/{memory_name}"
    with_ids = {**PAIR, "ids": ["a", "b"]}

    def hold(method, route, reply):
        operation = document["paths"][route][method]
        response = operation["responses"].get(str(reply.status)) or operation["responses"].get("default") or \
            operation["responses"].get(f"{reply.status // 100}XX")
        assert response, f"{method} {route} doesn't document {reply.status}"
        response = resolve(document, response["$ref"]) if "$ref" in response else response
        media = reply.headers["Content-Type"].split(";")[0]
        assert media in response["content"], f"{method} {route} {reply.status}: {media}"
        if "json" in media:
            check_schema(document, response["content"][media].get("schema", {}), reply.json)

    route = next(path for path in document["paths"] if re.fullmatch(r"/v1/memories/\{\w+\}", path))
    hold("put", route, daemon.put(path, with_ids))
    hold("put", route, daemon.put(path, with_ids))
    hold("put", route, daemon.put(path, {"keys": 1}))
    hold("put", route, daemon.put(path, with_ids, {"If-Match": '"0"'}))
    hold("put", route, daemon.put(path, "x", {"Content-Type": "text/plain"}))
    hold("get", route, daemon.get(path))
    hold("get", route, daemon.get(path + "-absent"))
    hold("delete", route, daemon.delete(path + "-absent"))
    hold("get", "/v1/memories", daemon.get("/v1/memories"))
    hold("get", "/metrics", daemon.get("/metrics"))
    hold("get", "/healthz", daemon.get("/healthz"))
    hold("get", "/readyz", daemon.get("/readyz"))
    hold("get", "/openapi.json", daemon.get("/openapi.json"))
    for mode in ("full", "none", {"top": 1}):
        hold("post", route + "/attend", daemon.post(path + "/attend", {"queries": [[1, 2]], "weights": mode}))
        body = {**PAIR, "queries": [[1, 2]], "weights": mode}
        hold("post", "/v1/attend", daemon.post("/v1/attend", body))
    hold("post", route + "/attend", daemon.post(path + "/attend", {"queries": [[1]]}))
    hold("post", route + "/attend", daemon.post(path + "/attend", "{"))


def test_requests_of_this_suite_fit_the_document(document):
    """The schemas accept what the daemon accepts, so that a generated client
    can send it."""

    def hold(route, method, body):
        content = document["paths"][route][method]["requestBody"]
        content = resolve(document, content["$ref"]) if "$ref" in content else content
        check_schema(document, content["content"]["application/json"]["schema"], body, "request")

    route = next(path for path in document["paths"] if re.fullmatch(r"/v1/memories/\{\w+\}", path))
    for extra in ({}, {"ids": ["a", "b"]}, {"score": "dot", "normalization": "sum"},
                  {"score": {"type": "gaussian", "sigma": 0.5},
                   "normalization": {"type": "softmax", "temperature": 2, "top_k": 3}},
                  {"score": {"type": "bilinear", "w": [[1, 2]]}}):
        hold(route, "put", {**PAIR, **extra})
    hold(route, "put", {"key_dim": 3, "value_dim": 4})
    for weights in ("full", "none", {"top": 3}):
        hold(route + "/attend", "post", {"queries": [[1, 2]], "weights": weights})
        hold("/v1/attend", "post", {**PAIR, "queries": [[1, 2]], "weights": weights, "score": "exact"})
