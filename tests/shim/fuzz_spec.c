/* Feeds the spec's parser whatever libFuzzer makes up: built and run by test_fuzz.py. An accepted spec is compared,
 * pointer by pointer, with what a plain walk over the text finds. */
#include <stdint.h>
#include <stdlib.h>

/* Each list in a block of its own, so that the sanitizer sees its end; the parser itself never gives them back. */
static void *blocks[64];
static size_t block_count;

static void *keep_block(size_t count, size_t size)
{
    if (block_count == sizeof blocks / sizeof *blocks)
        abort();
    return blocks[block_count++] = calloc(count, size);
}

#define calloc keep_block
#include "spec.c"
#undef calloc

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);     \
            abort();                                                            \
        }                                                                       \
    } while (0)

/* The entry's value if that is its key. */
static const char *value_of(const char *entry, const char *key)
{
    size_t length = strlen(key);
    return strncmp(entry, key, length) == 0 && entry[length] == '=' ? entry + length + 1 : NULL;
}

/* The value of the key's first entry from here on, which is stepped over; NULL when there is none. */
static const char *next_value(const char **entry, const char *end, const char *key)
{
    const char *value = NULL;
    while (*entry < end && !value) {
        value = value_of(*entry, key);
        *entry += strlen(*entry) + 1;
    }
    return value;
}

struct text {
    const char *start, *end;
};

static void check_list(struct text text, const char *key, const struct strings *list)
{
    const char *entry = text.start;
    for (size_t i = 0; i < list->count; i++)
        CHECK(list->at[i] == next_value(&entry, text.end, key));
    CHECK(next_value(&entry, text.end, key) == NULL);
    CHECK(list->at[list->count] == NULL);
}

static void check_single(struct text text, const char *key, const char *value)
{
    const char *entry = text.start;
    CHECK(next_value(&entry, text.end, key) == value);
    CHECK(next_value(&entry, text.end, key) == NULL);
}

/* NULL when there is none. */
static void check_maybe(struct text text, const char *key, const char *value)
{
    const char *entry = text.start;
    CHECK(next_value(&entry, text.end, key) == value);
    CHECK(!value || next_value(&entry, text.end, key) == NULL);
}

static void check_number(struct text text, const char *key, uint64_t number, bool may_lack)
{
    const char *entry = text.start;
    char written[32];
    const char *value = next_value(&entry, text.end, key);
    if (!value && may_lack) {
        CHECK(number == 0);
        return;
    }
    CHECK(value && *value);
    while (*value == '0' && value[1])
        value++;
    snprintf(written, sizeof written, "%llu", (unsigned long long)number);
    CHECK(strcmp(value, written) == 0);
    CHECK(next_value(&entry, text.end, key) == NULL);
}

static void check_path(const char *path)
{
    CHECK(path[0] == '/' && path[1] && strlen(path) < 4096 && path[strlen(path) - 1] != '/');
    CHECK(!strstr(path, "//") && !strstr(path, "/./") && !strstr(path, "/../"));
    const char *last = strrchr(path, '/');
    CHECK(strcmp(last, "/.") != 0 && strcmp(last, "/..") != 0);
    for (const char *slash = path; slash; slash = strchr(slash + 1, '/'))
        CHECK(strcspn(slash + 1, "/") <= 255);
}

static void check_paths(const struct strings *list, bool own)
{
    for (size_t i = 0; i < list->count; i++) {
        check_path(list->at[i]);
        CHECK(own || strncmp(list->at[i], "/proc/", 6) != 0);
        CHECK(own || (strcmp(list->at[i], "/dev") != 0 && strncmp(list->at[i], "/dev/", 5) != 0));
    }
}

/* Of a file in a group's directory, and not a way out of that. */
static void check_name(const char *name, size_t length)
{
    CHECK(length > 0 && length < 256 && name[0] != '.' && !memchr(name, '/', length));
}

/* Groups in the order of the text, each with what follows it there until the next one. */
static void check_groups(struct text text, const struct spec *spec)
{
    struct {
        size_t set, lift, stat;
    } found[SPEC_GROUPS_MAX] = {{0}};
    size_t count = 0, unified = 0;
    for (const char *entry = text.start; entry < text.end; entry += strlen(entry) + 1) {
        const char *value;
        const struct group *group = count > 0 ? &spec->group[count - 1] : NULL;
        if (value_of(entry, "cgroup") || value_of(entry, "cgroup2")) {
            CHECK(count < spec->groups && spec->groups <= SPEC_GROUPS_MAX);
            group = &spec->group[count++];
            CHECK(group->path == strchr(entry, '=') + 1 && group->v2 == !value_of(entry, "cgroup"));
            check_path(group->path);
            unified += group->v2;
        } else if ((value = value_of(entry, "set"))) {
            CHECK(group && group->set.at[found[count - 1].set++] == value);
            check_name(value, strcspn(value, "="));
            CHECK(strchr(value, '='));
        } else if ((value = value_of(entry, "lift"))) {
            CHECK(group && group->lift.at[found[count - 1].lift++] == value);
            check_name(value, strcspn(value, "="));
            CHECK(strchr(value, '='));
        } else if ((value = value_of(entry, "stat"))) {
            CHECK(group && group->stat.at[found[count - 1].stat++] == value);
            const char *file = strchr(value, '=');
            CHECK(file && file > value && !memchr(value, '\n', (size_t)(file - value)));
            check_name(file + 1, strcspn(file + 1, ":"));
        } else if ((value = value_of(entry, "kill"))) {
            CHECK(group && group->kill == value);
            check_name(value, strlen(value));
        } else if ((value = value_of(entry, "oom"))) {
            CHECK(group && group->oom == value);
            check_name(value, strlen(value));
        }
    }
    CHECK(count == spec->groups && unified <= 1);
    for (size_t i = 0; i < count; i++)
        CHECK(spec->group[i].set.count == found[i].set && spec->group[i].lift.count == found[i].lift &&
              spec->group[i].stat.count == found[i].stat);
}

static void check_flag(struct text text, const char *key, bool set)
{
    const char *entry = text.start;
    const char *value = next_value(&entry, text.end, key);
    CHECK(set == (value != NULL) && (!value || !*value));
    CHECK(next_value(&entry, text.end, key) == NULL);
}

/* Numbers with a space between them, each as it is written when leading zeros are left out. */
static void check_size(struct text text, uint32_t rows, uint32_t columns)
{
    const char *entry = text.start;
    const char *value = next_value(&entry, text.end, "terminal");
    CHECK(next_value(&entry, text.end, "terminal") == NULL);
    if (!value) {
        CHECK(rows == 0 && columns == 0);
        return;
    }
    char *rest;
    CHECK(strspn(value, "0123456789 ") == strlen(value));
    CHECK(strtoull(value, &rest, 10) == rows && *rest == ' ' && rest > value);
    CHECK(strtoull(rest + 1, &rest, 10) == columns && !*rest);
    CHECK(rows > 0 && rows <= UINT16_MAX && columns > 0 && columns <= UINT16_MAX);
}

static void check_spec(struct text text, const struct spec *spec)
{
    CHECK(strncmp(text.start, "version=5", sizeof "version=5") == 0);
    CHECK(text.end - text.start >= 5 && memcmp(text.end - 5, "end=", 5) == 0);
    check_single(text, "id", spec->id);
    check_single(text, "hostname", spec->hostname);
    check_single(text, "work", spec->work);
    check_maybe(text, "cwd", spec->cwd);
    check_maybe(text, "outputs", spec->outputs);
    check_maybe(text, "shared", spec->shared);
    check_size(text, spec->rows, spec->columns);
    check_flag(text, "input", spec->input);
    CHECK(!spec->input || !spec->rows);
    check_number(text, "uid_base", spec->uid_base, false);
    check_number(text, "id_count", spec->id_count, false);
    check_number(text, "grace_ms", spec->grace_ms, false);
    check_number(text, "open_files", spec->open_files, false);
    check_number(text, "tmp_bytes", spec->tmp_bytes, false);
    check_number(text, "log_limit", spec->log_limit, true);
    check_list(text, "ro", &spec->ro);
    check_list(text, "rw", &spec->rw);
    check_list(text, "mask", &spec->mask);
    check_list(text, "env", &spec->env);
    check_list(text, "arg", &spec->arg);
    check_groups(text, spec);

    CHECK(*spec->id && strspn(spec->id, "0123456789") == strlen(spec->id) && strlen(spec->id) <= 20);
    CHECK(*spec->hostname && strlen(spec->hostname) <= 64);
    CHECK(spec->uid_base > 0 && spec->id_count > 0 && (uint64_t)spec->uid_base + spec->id_count <= UINT32_MAX);
    CHECK(spec->open_files > 0 && spec->tmp_bytes > 0 && spec->arg.count > 0 && spec->rw.count <= SPEC_WRITABLE_MAX);
    check_path(spec->work);
    CHECK(!spec->cwd || *spec->cwd == '/');
    if (spec->outputs) {
        CHECK(*spec->outputs && strlen(spec->outputs) < 256 && !strchr(spec->outputs, '/'));
        CHECK(strcmp(spec->outputs, ".") != 0 && strcmp(spec->outputs, "..") != 0);
    }
    if (spec->shared)
        check_path(spec->shared);
    check_paths(&spec->ro, false);
    check_paths(&spec->rw, false);
    check_paths(&spec->mask, true);
    for (size_t i = 0; i < spec->env.count; i++)
        CHECK(spec->env.at[i][0] != '=' && strchr(spec->env.at[i], '='));
}

/* One printable line, or the report and the log would be confused. */
static void check_refusal(const char detail[SPEC_DETAIL_SIZE])
{
    size_t length = strnlen(detail, SPEC_DETAIL_SIZE);
    CHECK(length > 0 && length < SPEC_DETAIL_SIZE);
    for (size_t i = 0; i < length; i++)
        CHECK(detail[i] >= ' ' && detail[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size ? size : 1);
    struct spec spec;
    char detail[SPEC_DETAIL_SIZE];
    memset(detail, 'x', sizeof detail);
    memcpy(text, data, size);
    if (spec_parse(&spec, text, size, detail))
        check_spec((struct text){text, text + size}, &spec);
    else
        check_refusal(detail);
    CHECK(memcmp(text, data, size) == 0);
    while (block_count > 0)
        free(blocks[--block_count]);
    free(text);
    return 0;
}
