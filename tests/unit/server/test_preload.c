/* The configuration file, the option `memories`, and the files it names. */
#include <dirent.h>

#include "codec/config_file.h"
#include "tensor_file.h"
#include "unit.h"

/* ---- A folder for the files of one test ---- */

struct folder {
  char path[256];
};

static struct folder make_folder(void) {
  struct folder folder;
  const char *parent = getenv("TMPDIR");
  snprintf(folder.path, sizeof folder.path, "%s/preload-XXXXXX", parent ? parent : P_tmpdir);
  ck_assert_ptr_nonnull(mkdtemp(folder.path));
  return folder;
}

static const char *write_file(struct folder *folder, const char *name, const char *text,
                              size_t length) {
  static char path[512];
  snprintf(path, sizeof path, "%s/%s", folder->path, name);
  FILE *file = fopen(path, "wb");
  ck_assert_ptr_nonnull(file);
  ck_assert_uint_eq(fwrite(text, 1, length, file), length);
  ck_assert_int_eq(fclose(file), 0);
  return path;
}

static const char *write_text(struct folder *folder, const char *name, const char *text) {
  return write_file(folder, name, text, strlen(text));
}

static void remove_folder(struct folder *folder) {
  DIR *dir = opendir(folder->path);
  ck_assert_ptr_nonnull(dir);
  struct dirent *entry;
  while ((entry = readdir(dir)))
    if (entry->d_name[0] != '.') ck_assert_int_eq(unlinkat(dirfd(dir), entry->d_name, 0), 0);
  closedir(dir);
  ck_assert_int_eq(rmdir(folder->path), 0);
}

/* ---- The configuration file ---- */

struct seen {
  char text[1024];
  const char *refuse;
};

static bool see(void *context, const char *name, const char *value, char *error,
                size_t error_size) {
  struct seen *seen = context;
  size_t used = strlen(seen->text);
  snprintf(seen->text + used, sizeof seen->text - used, "%s=%s;", name, value);
  if (!seen->refuse || strcmp(seen->refuse, name) != 0) return true;
  snprintf(error, error_size, "%s is not liked", name);
  return false;
}

static void check_config(const char *text, const char *expected) {
  struct folder folder = make_folder();
  struct seen seen = {.refuse = "bad"};
  char error[256] = "";
  const char *path = write_text(&folder, "c.json", text);
  if (!config_file_read(path, see, &seen, error, sizeof error)) ck_abort_msg("%s", error);
  ck_assert_str_eq(seen.text, expected);
  remove_folder(&folder);
}

/* `error` is without the path, which has to be there too. */
static void refuse_config(const char *text, size_t length, const char *expected_error,
                          const char *expected) {
  struct folder folder = make_folder();
  struct seen seen = {.refuse = "bad"};
  char error[512] = "", whole[1024];
  const char *path = write_file(&folder, "c.json", text, length);
  ck_assert(!config_file_read(path, see, &seen, error, sizeof error));
  snprintf(whole, sizeof whole, "%s: %s", path, expected_error);
  ck_assert_str_eq(error, expected_error[0] == '!' ? expected_error + 1 : whole);
  ck_assert_str_eq(seen.text, expected);
  remove_folder(&folder);
}

START_TEST(test_config) {
  check_config("{}", "");
  check_config(
      " {\"a\":\"text \\u00e4\\n\",\"b\":8080,\"c\":true,\"d\":false,\n\"e\":[ {\"x\":1} , 2 "
      "],\"f\":{ },\"g\":\"\",\"h\":-1.50e3}\n",
      "a=text \xc3\xa4\n;b=8080;c=true;d=false;e=[ {\"x\":1} , 2 ];f={ };g=;h=-1.50e3;");
}
END_TEST

START_TEST(test_config_faults) {
  static const struct {
    const char *text, *error, *seen;
  } cases[] = {
      {"", "line 1, column 1: expected a value, got the end of the text", ""},
      {"{\"a\":1,\n \"b\" 2}", "line 2, column 6: expected ':', got '2'", ""},
      {"{\"a\":1,\"a\":1}", "line 1, column 8: the object has a member of that name already", ""},
      {"{\"a\":[{\"b\":1,\"b\":1}]}",
       "line 1, column 14: the object has a member of that name already", ""},
      {"[1]", "expected an object of options", ""},
      {"{\"a\":1,\"b\":null}", "b: null is no value; leave the option out", "a=1;"},
      {"{\"a\":\"x\\u0000y\"}", "a: the text has a NUL in it", ""},
      {"{\"a\":1,\"bad\":2,\"c\":3}", "!bad is not liked", "a=1;bad=2;"},
      {"{\"a\\u0000\":1}", "a: there is no option of that name", ""},
      {"\xef\xbb\xbf{}", "line 1, column 1: expected a value, got a byte order mark", ""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    refuse_config(cases[i].text, strlen(cases[i].text), cases[i].error, cases[i].seen);
  refuse_config("{\"a\":1}\0", 8,
                "line 1, column 8: expected the end of the text, got the byte 0x00", "");
}
END_TEST

START_TEST(test_config_without_file) {
  struct seen seen = {.refuse = NULL};
  struct folder folder = make_folder();
  char path[512], error[512], expected[1024];
  snprintf(path, sizeof path, "%s/none.json", folder.path);
  ck_assert(!config_file_read(path, see, &seen, error, sizeof error));
  snprintf(expected, sizeof expected, "%s: No such file or directory", path);
  ck_assert_str_eq(error, expected);
  ck_assert(!config_file_read(folder.path, see, &seen, error, sizeof error));
  snprintf(expected, sizeof expected, "%s: Is a directory", folder.path);
  ck_assert_str_eq(error, expected);
  ck_assert(!config_file_read("/dev/zero", see, &seen, error, sizeof error));
  ck_assert_str_eq(error, "/dev/zero: the file is longer than 67108864 bytes");
  char small[8];
  ck_assert(!config_file_read(path, see, &seen, small, sizeof small));
  ck_assert_uint_lt(strlen(small), sizeof small);
  remove_folder(&folder);
}
END_TEST

/* ---- The option ---- */

#define CSV "\"name\":\"m\",\"file\":\"m.csv\""
#define KV  "\"keys\":{\"columns\":[0,2]},\"values\":{\"columns\":[2,3]}"

START_TEST(test_option) {
  struct preload_list list;
  char error[256];
  ck_assert(preload_parse("[]", "", &list, error, sizeof error));
  ck_assert_uint_eq(list.count, 0);
  preload_free(&list);
  ck_assert(preload_parse(
      " [ {\"name\":\"a.b_c-D9\",\"file\":\"x/a.json\"},\n{\"name\":\"b\",\"file\":\"/x/b.csv\"," KV
      ",\"rows\":[5,10],\"ids\":{\"column\":7},\"score\":{\"type\":\"gaussian\",\"sigma\":2},"
      "\"normalization\":\"sum\"}]",
      "folder", &list, error, sizeof error));
  ck_assert_uint_eq(list.count, 2);
  ck_assert_str_eq(list.items[0].name, "a.b_c-D9");
  ck_assert_str_eq(list.items[0].path, "folder/x/a.json");
  ck_assert_str_eq(list.items[1].path, "/x/b.csv");
  preload_free(&list);
  preload_free(&list);
}
END_TEST

START_TEST(test_folders) {
  static const struct {
    const char *folder, *file, *path;
  } cases[] = {{"", "a.json", "a.json"},          {"/", "a.json", "/a.json"},
               {"/etc", "a.json", "/etc/a.json"}, {"x/", "a.json", "x/a.json"},
               {"x", "/a.json", "/a.json"},       {"x", "../a.json", "x/../a.json"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct preload_list list;
    char error[256], json[128];
    snprintf(json, sizeof json, "[{\"name\":\"m\",\"file\":\"%s\"}]", cases[i].file);
    ck_assert(preload_parse(json, cases[i].folder, &list, error, sizeof error));
    ck_assert_str_eq(list.items[0].path, cases[i].path);
    preload_free(&list);
  }
}
END_TEST

START_TEST(test_option_faults) {
  static const struct {
    const char *json, *error;
  } cases[] = {
      {"", "memories: line 1, column 1: expected a value"},
      {"[", "memories/0: line 1, column 2"},
      {"{}", "memories: expected an array, got an object"},
      {"[7]", "memories/0: expected an object, got a number"},
      {"[{}]", "memories/0/name: a memory to load needs \"name\""},
      {"[{\"name\":\"m\"}]", "memories/0/file: a memory to load needs \"file\""},
      {"[{\"name\":7,\"file\":\"a.json\"}]", "memories/0/name: expected a string, got a number"},
      {"[{\"name\":\"\",\"file\":\"a.json\"}]", "memories/0/name: expected 1 to 128 bytes, got 0"},
      {"[{\"name\":\".m\",\"file\":\"a.json\"}]", "memories/0/name: a name is made of"},
      {"[{\"name\":\"a b\",\"file\":\"a.json\"}]", "memories/0/name: a name is made of"},
      {"[{\"name\":\"a\\u0000\",\"file\":\"a.json\"}]", "memories/0/name: the text has a NUL"},
      {"[{\"name\":\"m\",\"file\":\"a.txt\"}]",
       "memories/0/file: expected a file that ends in .json, .csv or .safetensors"},
      {"[{\"name\":\"m\",\"file\":\".csv\"}]", "memories/0/file: expected a file that ends"},
      {"[{\"name\":\"m\",\"file\":\"a.json\",\"fiel\":1}]",
       "memories/0/fiel: a memory to load takes \"name\", \"file\", \"rows\""},
      {"[{\"name\":\"m\",\"name\":\"m\"}]", "memories/0/name: line 1, column 14: the object has"},
      {"[{\"name\":\"m\",\"file\":\"a.json\"},{\"name\":\"m\",\"file\":\"b.json\"}]",
       "memories/1/name: \"m\" is loaded by memories/0 already"},
      {"[{\"name\":\"m\",\"file\":\"a.json\",\"rows\":[0,1]}]",
       "memories/0/rows: this goes with .csv files alone"},
      {"[{\"name\":\"m\",\"file\":\"a.json\",\"ids\":{\"column\":0}}]",
       "memories/0/ids: this goes"},
      {"[{\"name\":\"m\",\"file\":\"a.safetensors\",\"rows\":[0,1]}]",
       "memories/0/rows: this goes with .csv files alone"},
      {"[{\"name\":\"m\",\"keys\":\"k.npy\"}]", "memories/0/values: a memory to load needs"},
      {"[{\"name\":\"m\",\"values\":\"v.npy\"}]", "memories/0/keys: a memory to load needs"},
      {"[{\"name\":\"m\",\"keys\":\"k.csv\"}]",
       "memories/0/keys: expected a file that ends in .npy"},
      {"[{\"name\":\"m\",\"keys\":\"k.npy\",\"values\":{\"columns\":[0,1]}}]",
       "memories/0/values: expected a file that ends in .npy"},
      {"[{\"name\":\"m\",\"keys\":\"k.npy\",\"values\":\"v.npy\",\"file\":\"a.json\"}]",
       "memories/0/file: the rows come from .npy files, or from this one"},
      {"[{\"name\":\"m\",\"keys\":\"k.npy\",\"values\":\"v.npy\",\"rows\":[0,1]}]",
       "memories/0/rows: this goes with .csv files alone"},
      {"[{\"name\":\"m\",\"keys\":\"k.npy\",\"values\":\"v.npy\",\"ids\":{\"column\":0}}]",
       "memories/0/ids: this goes with .csv files alone"},
      {"[{" CSV "}]", "memories/0/keys: a memory to load needs \"keys\""},
      {"[{" CSV ",\"keys\":{\"columns\":[0,1]}}]", "memories/0/values: a memory to load needs"},
      {"[{" CSV ",\"keys\":[0,1]}]", "memories/0/keys: expected an object, got an array"},
      {"[{" CSV ",\"keys\":{}}]", "memories/0/keys/columns: keys needs \"columns\""},
      {"[{" CSV ",\"keys\":{\"columns\":3}}]",
       "memories/0/keys/columns: expected an array, got a number"},
      {"[{" CSV ",\"keys\":{\"columns\":[0]}}]", "memories/0/keys/columns: expected [first, end]"},
      {"[{" CSV ",\"keys\":{\"columns\":[]}}]", "memories/0/keys/columns: expected [first, end]"},
      {"[{" CSV ",\"keys\":{\"columns\":[0,1,2]}}]", "memories/0/keys/columns: expected [first,"},
      {"[{" CSV ",\"keys\":{\"columns\":[3,3]}}]",
       "memories/0/keys/columns: expected [first, end]"},
      {"[{" CSV ",\"keys\":{\"columns\":[4,3]}}]",
       "memories/0/keys/columns: expected [first, end]"},
      {"[{" CSV ",\"keys\":{\"columns\":[-1,3]}}]",
       "memories/0/keys/columns/0: expected a whole number from 0 to 1048576, got -1"},
      {"[{" CSV ",\"keys\":{\"columns\":[0,1.5]}}]", "memories/0/keys/columns/1: expected a whole"},
      {"[{" CSV ",\"keys\":{\"columns\":[0,\"1\"]}}]", "memories/0/keys/columns/1: expected a num"},
      {"[{" CSV ",\"keys\":{\"columns\":[0,1],\"scale\":\"1\"}}]",
       "memories/0/keys/scale: expected a number, got a string"},
      {"[{" CSV ",\"keys\":{\"columns\":[0,1],\"one_hot\":3}}]",
       "memories/0/keys/one_hot: keys takes \"columns\", \"scale\", not \"one_hot\""},
      {"[{" CSV ",\"values\":{\"columns\":[0,2],\"one_hot\":3}}]",
       "memories/0/values: one_hot goes with one column and no scale"},
      {"[{" CSV ",\"values\":{\"columns\":[0,1],\"one_hot\":3,\"scale\":2}}]",
       "memories/0/values: one_hot goes with one column and no scale"},
      {"[{" CSV ",\"values\":{\"columns\":[0,1],\"one_hot\":0}}]",
       "memories/0/values/one_hot: expected a whole number from 1"},
      {"[{" CSV ",\"rows\":[10,10]}]", "memories/0/rows: expected [first, end]"},
      {"[{" CSV ",\"rows\":{\"first\":0}}]", "memories/0/rows: expected an array"},
      {"[{" CSV ",\"ids\":3}]", "memories/0/ids: expected an object, got a number"},
      {"[{" CSV ",\"ids\":{}}]", "memories/0/ids/column: ids needs \"column\""},
      {"[{" CSV "," KV ",\"score\":\"dott\"}]", "memories/0/score: expected one of dot, "},
      {"[{" CSV "," KV ",\"score\":{\"type\":\"gaussian\",\"sigma\":0}}]",
       "memories/0/score/sigma: sigma must be greater than 0"},
      {"[{" CSV "," KV ",\"score\":{\"type\":\"bilinear\",\"w\":[[1,2,3]]}}]",
       "memories/0/score: its matrices do not fit keys of 2 numbers"},
      {"[{" CSV "," KV ",\"normalization\":{}}]", "memories/0/normalization/type: normalization "},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct preload_list list;
    char error[512] = "";
    if (preload_parse(cases[i].json, "", &list, error, sizeof error))
      ck_abort_msg("taken: %s", cases[i].json);
    if (strncmp(error, cases[i].error, strlen(cases[i].error)) != 0)
      ck_abort_msg("%s: %s", cases[i].json, error);
    ck_assert_uint_eq(list.count, 0);
    preload_free(&list);
  }
}
END_TEST

/* ---- Files ---- */

/* Reads `text` as the file m.csv or m.json with the members given; false with
 * the error, the path cut off. */
static bool read_memory(const char *file, const char *text, const char *members,
                        struct memory_body *body, char *error, size_t error_size) {
  struct folder folder = make_folder();
  struct preload_list list;
  char json[512], whole[512] = "";
  snprintf(json, sizeof json, "[{\"name\":\"m\",\"file\":\"%s\"%s%s}]", file, *members ? "," : "",
           members);
  size_t path_length = strlen(write_text(&folder, file, text));
  if (!preload_parse(json, folder.path, &list, whole, sizeof whole)) ck_abort_msg("%s", whole);
  bool read = preload_read(&list.items[0], body, whole, sizeof whole);
  if (!read) {
    ck_assert(strncmp(whole, list.items[0].path, path_length) == 0);
    snprintf(error, error_size, "%s", whole + path_length);
  }
  preload_free(&list);
  remove_folder(&folder);
  return read;
}

static struct memory_body take(const char *file, const char *text, const char *members) {
  struct memory_body body;
  char error[512];
  if (!read_memory(file, text, members, &body, error, sizeof error)) ck_abort_msg("%s", error);
  return body;
}

static void refuse(const char *file, const char *text, const char *members, const char *expected) {
  struct memory_body body;
  char error[512];
  if (read_memory(file, text, members, &body, error, sizeof error)) ck_abort_msg("taken: %s", text);
  ck_assert_str_eq(error, expected);
  memory_body_free(&body);
}

static void check_rows(const struct matrix *matrix, size_t rows, size_t cols,
                       const float *expected) {
  ck_assert_uint_eq(matrix->rows, rows);
  ck_assert_uint_eq(matrix->cols, cols);
  ck_assert(memcmp(matrix->data, expected, rows * cols * sizeof *expected) == 0);
}

START_TEST(test_json_file) {
  const char *text = "{\"keys\":[[1,2]],\"values\":[[3]],\"score\":\"dot\",\"ids\":[\"a\"]}\n";
  struct memory_body body = take("m.json", text, "");
  check_rows(&body.keys, 1, 2, (const float[]){1, 2});
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "dot");
  ck_assert_str_eq(id_list_get(body.ids, 0, NULL), "a");
  memory_body_free(&body);
  body = take("m.json", text, "\"score\":\"euclidean\",\"normalization\":\"hardmax\"");
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "euclidean");
  ck_assert_str_eq(attn_normalization_get_info(body.normalization)->name, "hardmax");
  memory_body_free(&body);
  refuse("m.json", "", "", ": the body is empty; expected a JSON object");
  refuse("m.json", "{\"keys\":[[1,2]],\n\"values\":[[x]]}", "",
         ": /values/0/0: line 2, column 12: expected a value, got 'x'");
  refuse("m.json", "{\"keys\":[[1,2]],\"values\":[[1,2e39]]}", "",
         ": /values/0/1: expected a number within float32, got 2e39");
  refuse("m.json", text, "\"score\":{\"type\":\"bilinear\",\"w\":[[1]]}",
         ": /score: w has rows of 1 numbers, the keys have 2 components");
}
END_TEST

/* ---- Binary files ---- */

static struct buffer make_tensors(void) {
  struct buffer file =
      begin_file("{\"keys\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                 "\"values\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[16,24]},"
                 "\"__metadata__\":{\"reply\":\"{}\",\"request\":\"{\\\"score\\\":\\\"dot\\\","
                 "\\\"ids\\\":[\\\"a\\\",\\\"b\\\"]}\"}}");
  put_f32(&file, (const float[]){1, 2, 3, 4, 5, 6}, 6);
  return file;
}

/* From memory m of that option; the files are in the folder already. */
static bool read_option(struct folder *folder, const char *json, struct memory_body *body,
                        char *error, size_t error_size) {
  struct preload_list list;
  if (!preload_parse(json, folder->path, &list, error, error_size)) ck_abort_msg("%s", error);
  char whole[512] = "";
  bool read = preload_read(&list.items[0], body, whole, sizeof whole);
  if (!read) {
    ck_assert(strncmp(whole, folder->path, strlen(folder->path)) == 0);
    snprintf(error, error_size, "%s", whole + strlen(folder->path) + 1);
  }
  preload_free(&list);
  return read;
}

START_TEST(test_tensors_file) {
  struct folder folder = make_folder();
  struct buffer file = make_tensors();
  struct memory_body body;
  char error[512];
  const char *plain = "[{\"name\":\"m\",\"file\":\"m.safetensors\"}]";
  write_file(&folder, "m.safetensors", file.data, file.length);
  ck_assert(read_option(&folder, plain, &body, error, sizeof error));
  check_rows(&body.keys, 2, 2, (const float[]){1, 2, 3, 4});
  check_rows(&body.values, 2, 1, (const float[]){5, 6});
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "dot");
  ck_assert_str_eq(id_list_get(body.ids, 1, NULL), "b");
  memory_body_free(&body);
  ck_assert(read_option(&folder,
                        "[{\"name\":\"m\",\"file\":\"m.safetensors\",\"score\":\"cosine\"}]", &body,
                        error, sizeof error));
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "cosine");
  memory_body_free(&body);
  write_file(&folder, "m.safetensors", file.data, file.length - 1);
  ck_assert(!read_option(&folder, plain, &body, error, sizeof error));
  ck_assert_str_eq(error, "m.safetensors: expected 24 bytes behind the header, got 23");
  memset(file.data + file.length - 4, 0xff, 4);
  write_file(&folder, "m.safetensors", file.data, file.length);
  ck_assert(!read_option(&folder, plain, &body, error, sizeof error));
  ck_assert_str_eq(error, "m.safetensors: /values/1/0: expected a finite number, got NaN");
  buffer_free(&file);
  remove_folder(&folder);
}
END_TEST

static void write_npy(struct folder *folder, const char *name, const char *shape, size_t count) {
  struct buffer file;
  buffer_init(&file, 0);
  char header[128];
  int length = snprintf(header, sizeof header,
                        "{'descr': '<f4', 'fortran_order': False, 'shape': %s}\n", shape);
  buffer_append(&file, "\x93NUMPY\1\0", 8);
  put_little(&file, (uint64_t)length, 2);
  buffer_puts(&file, header);
  for (size_t i = 1; i <= count; i++)
    put_f32(&file, (const float[]){(float)i}, 1);
  write_file(folder, name, file.data, file.length);
  buffer_free(&file);
}

START_TEST(test_npy_files) {
  struct folder folder = make_folder();
  struct memory_body body;
  char error[512];
  const char *json = "[{\"name\":\"m\",\"values\":\"v.npy\",\"keys\":\"k.npy\",\"score\":\"dot\"}]";
  write_npy(&folder, "k.npy", "(2, 3)", 6);
  write_npy(&folder, "v.npy", "(2,)", 2);
  ck_assert(read_option(&folder, json, &body, error, sizeof error));
  check_rows(&body.keys, 2, 3, (const float[]){1, 2, 3, 4, 5, 6});
  check_rows(&body.values, 2, 1, (const float[]){1, 2});
  ck_assert_uint_eq(body.key_dim, 3);
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "dot");
  memory_body_free(&body);
  write_npy(&folder, "v.npy", "(3, 1)", 3);
  ck_assert(!read_option(&folder, json, &body, error, sizeof error));
  ck_assert_str_eq(error, "k.npy: /values: keys has 2 rows, values has 3");
  write_npy(&folder, "v.npy", "(2, 2)", 3);
  ck_assert(!read_option(&folder, json, &body, error, sizeof error));
  ck_assert_str_eq(error, "v.npy: the file ends within its numbers");
  write_npy(&folder, "k.npy", "(2,)", 2);
  ck_assert(!read_option(&folder, json, &body, error, sizeof error));
  ck_assert_str_eq(error, "k.npy: expected an array of two dimensions, got one of 1");
  remove_folder(&folder);
}
END_TEST

START_TEST(test_csv_file) {
  struct memory_body body = take("m.csv", "1,2,3\n4,5,6\n", KV);
  check_rows(&body.keys, 2, 2, (const float[]){1, 2, 4, 5});
  check_rows(&body.values, 2, 1, (const float[]){3, 6});
  ck_assert_uint_eq(body.key_dim, 2);
  ck_assert_uint_eq(body.value_dim, 1);
  ck_assert_ptr_null(body.ids);
  ck_assert_str_eq(attn_score_get_info(body.score)->name, "scaled_dot");
  memory_body_free(&body);
  /* as it may come: a mark, CRLF, a header, quotes, space, empty lines, no end */
  body = take("m.csv",
              "\xef\xbb\xbf\"x, \"\"1\"\"\",y,label\r\n\r\n\"1\", 2\t,-3e-1\r\n\n 4,\" 5 \",6", KV);
  check_rows(&body.keys, 2, 2, (const float[]){1, 2, 4, 5});
  check_rows(&body.values, 2, 1, (const float[]){-0.3f, 6});
  memory_body_free(&body);
}
END_TEST

START_TEST(test_csv_columns) {
  struct memory_body body =
      take("m.csv", "cat,0,1,8,x\ndog,1,2,16,y\nemu,2,3,24,z\n",
           "\"keys\":{\"columns\":[2,4],\"scale\":0.125},\"ids\":{\"column\":0},"
           "\"values\":{\"columns\":[1,2],\"one_hot\":3},\"rows\":[1,3],\"score\":\"gaussian\"");
  check_rows(&body.keys, 2, 2, (const float[]){0.25f, 2, 0.375f, 3});
  check_rows(&body.values, 2, 3, (const float[]){0, 1, 0, 0, 0, 1});
  ck_assert_uint_eq(id_list_count(body.ids), 2);
  ck_assert_str_eq(id_list_get(body.ids, 0, NULL), "dog");
  ck_assert_str_eq(id_list_get(body.ids, 1, NULL), "emu");
  ck_assert_str_eq(attn_normalization_get_info(body.normalization)->name, "sum");
  memory_body_free(&body);
  /* keys and values of the same columns; an id of a number, one with quotes */
  body = take("m.csv", "a,b,id\n1,2,7\n3,4,\"say \"\"hi\"\", \xc3\xa4\"\n",
              "\"keys\":{\"columns\":[0,2]},\"values\":{\"columns\":[0,2]},\"ids\":{\"column\":2}");
  check_rows(&body.values, 2, 2, (const float[]){1, 2, 3, 4});
  ck_assert_str_eq(id_list_get(body.ids, 0, NULL), "7");
  ck_assert_str_eq(id_list_get(body.ids, 1, NULL), "say \"hi\", \xc3\xa4");
  memory_body_free(&body);
}
END_TEST

START_TEST(test_csv_faults) {
  static const struct {
    const char *text, *members, *error;
  } cases[] = {
      {"1,2,3\n\n4,x,6\n", KV,
       ": line 3, column 1 (the first is 0): expected a number within float32, got x"},
      {"1,2,3\n4,,6\n", KV,
       ": line 2, column 1 (the first is 0): expected a number within float32, got "},
      {"1,2,3\n4,1e39,6\n", KV,
       ": line 2, column 1 (the first is 0): expected a number within float32, got 1e39"},
      {"1,2,3\n4,nan,6\n", KV,
       ": line 2, column 1 (the first is 0): expected a number within float32, got nan"},
      {"+1,+2,+3\n4,5,6\n", KV,
       ": line 1, column 0 (the first is 0): expected a number within float32, got +1"},
      {"a,007,b\n4,5,6\n", KV,
       ": line 1, column 0 (the first is 0): expected a number within float32, got a"},
      {"1,x,3\n", KV,
       ": line 1, column 1 (the first is 0): expected a number within float32, got x"},
      {"1,2,3\n4,5\n", KV, ": line 2 has 2 columns, the first line has 3"},
      {"1,2,3\n4,5,6,\n", KV, ": line 2 has 4 columns, the first line has 3"},
      {"1,2\n", KV, ": line 1 has 2 columns, column 2 (the first is 0) is asked for"},
      {"1,\"2,3\n4,5,6\n", KV, ": line 1, column 1 (the first is 0): quotes that do not match"},
      {"1,\"2\"3,3\n", KV, ": line 1, column 1 (the first is 0): quotes that do not match"},
      {"", KV, ": the file has no rows to read"},
      {"x,y,z\n", KV, ": the file has no rows to read"},
      {"\n\r\n", KV, ": the file has no rows to read"},
      {"1,2,3\n4,5,6\n", KV ",\"rows\":[0,3]", ": the file has 2 rows; rows up to 3 are asked for"},
      {"1,2,3\n", "\"keys\":{\"columns\":[0,1],\"scale\":1e39},\"values\":{\"columns\":[0,1]}",
       ": line 1, column 0 (the first is 0): expected a number within float32 once it is scaled, "
       "got 1"},
      {"1,2,3\n", "\"keys\":{\"columns\":[0,1]},\"values\":{\"columns\":[2,3],\"one_hot\":3}",
       ": line 1, column 2 (the first is 0): expected a whole number from 0 to 2, got 3"},
      {"1,2,-1\n", "\"keys\":{\"columns\":[0,1]},\"values\":{\"columns\":[2,3],\"one_hot\":3}",
       ": line 1, column 2 (the first is 0): expected a whole number from 0 to 2, got -1"},
      {"1,2,0.5\n", "\"keys\":{\"columns\":[0,1]},\"values\":{\"columns\":[2,3],\"one_hot\":3}",
       ": line 1, column 2 (the first is 0): expected a whole number from 0 to 2, got 0.5"},
      {"1,2,3,\n", KV ",\"ids\":{\"column\":3}",
       ": line 1, column 3 (the first is 0): expected an id of 1 to 256 bytes of UTF-8, got "},
      {"1,2,3,\xff\n", KV ",\"ids\":{\"column\":3}",
       ": line 1, column 3 (the first is 0): expected an id of 1 to 256 bytes of UTF-8, got \xff"},
      {"1,2,3\n", KV ",\"ids\":{\"column\":3}",
       ": line 1 has 3 columns, column 3 (the first is 0) is asked for"},
      {"a,b,c,id\n1,2,3,x\n\n1,2,3,y\n1,2,3,x\n", KV ",\"ids\":{\"column\":3}",
       ": line 5, column 3 (the first is 0): the id \"x\" is there already"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    refuse("m.csv", cases[i].text, cases[i].members, cases[i].error);
}
END_TEST

/* Rows that were not asked for need not be in order. */
START_TEST(test_csv_other_rows) {
  struct memory_body body = take("m.csv", "x,y,z\n?,?,?\n1,2,3\n!,!,!,!\n", KV ",\"rows\":[1,2]");
  check_rows(&body.keys, 1, 2, (const float[]){1, 2});
  memory_body_free(&body);
}
END_TEST

START_TEST(test_csv_that_does_not_end) {
  struct preload_list list;
  struct memory_body body;
  char error[256];
  ck_assert(preload_parse("[{\"name\":\"m\",\"file\":\"/none/m.csv\"," KV "}]", "", &list, error,
                          sizeof error));
  ck_assert(!preload_read(&list.items[0], &body, error, sizeof error));
  ck_assert_str_eq(error, "/none/m.csv: No such file or directory");
  free(list.items[0].path);
  list.items[0].path = strdup("/dev/zero");
  ck_assert(!preload_read(&list.items[0], &body, error, sizeof error));
  ck_assert_str_eq(error, "/dev/zero: a line is longer than 33554432 bytes");
  preload_free(&list);
}
END_TEST

/* More rows, and more columns, than any first guess at the room. */
START_TEST(test_csv_large) {
  enum { ROWS = 3000, COLS = 70 };
  size_t room = ROWS * (COLS * 12 + 16);
  char *text = malloc(room), *at = text;
  float *expected = malloc(sizeof(float) * ROWS * COLS);
  ck_assert(text && expected);
  uint64_t state = 11;
  for (size_t i = 0; i < ROWS; i++) {
    for (size_t j = 0; j < COLS; j++) {
      int number = (int)(next_random(&state) % 2000001) - 1000000;
      expected[i * COLS + j] = (float)((double)number / 1000);
      at += sprintf(at, "%.3f,", (double)number / 1000);
    }
    at += sprintf(at, "id%zu\n", i);
  }
  struct memory_body body = take("m.csv", text,
                                 "\"keys\":{\"columns\":[0,70]},\"values\":{\"columns\":[1,2]},"
                                 "\"ids\":{\"column\":70}");
  check_rows(&body.keys, ROWS, COLS, expected);
  ck_assert_uint_eq(id_list_count(body.ids), ROWS);
  ck_assert_str_eq(id_list_get(body.ids, ROWS - 1, NULL), "id2999");
  memory_body_free(&body);
  free(expected);
  free(text);
}
END_TEST

UNIT_MAIN("preload", test_config, test_config_faults, test_config_without_file, test_option,
          test_folders, test_option_faults, test_json_file, test_tensors_file, test_npy_files,
          test_csv_file, test_csv_columns, test_csv_faults, test_csv_other_rows,
          test_csv_that_does_not_end, test_csv_large)
