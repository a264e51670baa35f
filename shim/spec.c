#include "spec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "die.h"
#include "kernel.h"

enum { HOSTNAME_MAX = 64, ID_MAX = 20, PATH_BYTES_MAX = 4095 };

enum key { VERSION, ID, HOSTNAME, UID_BASE, ID_COUNT, GRACE_MS, OPEN_FILES, TMP_BYTES, LOG_LIMIT, WORK, CWD, OUTPUTS, INPUT, TERMINAL, DISK,
           APART, SERVER, RO, RW, SHARED, MASK, CGROUP2, CGROUP, SET, LIFT, KILL, OOM, STAT, ENV, ARG, END, KEYS };

/* MANY keys may come any number of times, ONCE keys exactly once, MAYBE keys at most once. */
static const struct {
    const char *name;
    enum { ONCE, MAYBE, MANY } times;
} keys[KEYS] = {
    [VERSION] = {"version", ONCE},   [ID] = {"id", ONCE},
    [HOSTNAME] = {"hostname", ONCE}, [UID_BASE] = {"uid_base", ONCE},
    [ID_COUNT] = {"id_count", ONCE}, [GRACE_MS] = {"grace_ms", ONCE},
    [OPEN_FILES] = {"open_files", ONCE}, [TMP_BYTES] = {"tmp_bytes", ONCE},
    [LOG_LIMIT] = {"log_limit", MAYBE}, [WORK] = {"work", ONCE},
    [CWD] = {"cwd", MAYBE},          [OUTPUTS] = {"outputs", MAYBE},
    [INPUT] = {"input", MAYBE},      [TERMINAL] = {"terminal", MAYBE},
    [DISK] = {"disk", MAYBE},        [APART] = {"apart", MAYBE},
    [SERVER] = {"server", MAYBE},
    [RO] = {"ro", MANY},             [RW] = {"rw", MANY},
    [SHARED] = {"shared", MAYBE},    [MASK] = {"mask", MANY},
    [CGROUP2] = {"cgroup2", MAYBE},  [CGROUP] = {"cgroup", MANY},
    [SET] = {"set", MANY},           [LIFT] = {"lift", MANY},
    [KILL] = {"kill", MAYBE},        [OOM] = {"oom", MAYBE},
    [STAT] = {"stat", MANY},
    [ENV] = {"env", MANY},           [ARG] = {"arg", MANY},
    [END] = {"end", ONCE},
};

/* What is known while reading: lists in which the groups' slices live, and which keys have come. */
struct reader {
    struct spec *spec;
    struct strings set, lift, stat;
    bool seen[KEYS];
    const char *wrong;
};

static bool refuse(struct reader *reader, const char *wrong)
{
    reader->wrong = wrong;
    return false;
}

/* Digits only, within the limits: no sign, no space, no empty string. */
static bool read_number(const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
    uint64_t value = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        uint64_t digit = (uint64_t)(*text - '0');
        if (digit > most || value > (most - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *number = value;
    return value >= least;
}

static bool read_number32(const char *text, uint32_t least, uint32_t most, uint32_t *number)
{
    uint64_t value;
    if (!read_number(text, least, most, &value))
        return false;
    *number = (uint32_t)value;
    return true;
}

/* `ROWS COLUMNS`, as much as a struct winsize holds. */
static bool read_size(const char *text, struct spec *spec)
{
    char rows[8];
    size_t length = strcspn(text, " ");
    if (length >= sizeof rows || text[length] != ' ')
        return false;
    memcpy(rows, text, length);
    rows[length] = '\0';
    return read_number32(rows, 1, UINT16_MAX, &spec->rows) &&
           read_number32(text + length + 1, 1, UINT16_MAX, &spec->columns);
}

/* Absolute and plain: no empty component, no `.` or `..`, not the root itself. */
static bool is_plain_path(const char *path)
{
    if (*path != '/' || strlen(path) > PATH_BYTES_MAX)
        return false;
    while (*path == '/') {
        const char *name = ++path;
        path += strcspn(path, "/");
        size_t length = (size_t)(path - name);
        if (length == 0 || length > 255 || (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.'))))
            return false;
    }
    return true;
}

static bool is_at_or_below(const char *path, const char *parent)
{
    size_t length = strlen(parent);
    return strncmp(path, parent, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* A file of the work directory: a name, not a path. */
static bool is_plain_name(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length < 256 && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* A file of a group: a name, not a path. */
static bool is_file_name(const char *name, size_t length)
{
    return length > 0 && length < 256 && !memchr(name, '/', length) && name[0] != '.';
}

static bool is_digits(const char *text, size_t most)
{
    size_t length = strspn(text, "0123456789");
    return length > 0 && length <= most && text[length] == '\0';
}

static void append(struct strings *list, char *value)
{
    list->at[list->count++] = value;
}

static bool open_group(struct reader *reader, const char *path, bool v2)
{
    struct spec *spec = reader->spec;
    if (!is_plain_path(path))
        return refuse(reader, "not a plain absolute path");
    if (spec->groups == SPEC_GROUPS_MAX)
        return refuse(reader, "too many groups");
    spec->group[spec->groups++] = (struct group){
        .path = path,
        .v2 = v2,
        .set.at = reader->set.at + reader->set.count,
        .lift.at = reader->lift.at + reader->lift.count,
        .stat.at = reader->stat.at + reader->stat.count,
    };
    return true;
}

static bool read_group_entry(struct reader *reader, enum key key, char *value)
{
    if (reader->spec->groups == 0)
        return refuse(reader, "no group to belong to");
    struct group *group = &reader->spec->group[reader->spec->groups - 1];

    if (key == KILL || key == OOM) {
        if (!is_file_name(value, strlen(value)))
            return refuse(reader, "not a file name");
        *(key == KILL ? &group->kill : &group->oom) = value;
        return true;
    }
    size_t before = strcspn(value, "=");
    if (before == 0 || value[before] != '=')
        return refuse(reader, "no = in the value");
    const char *file = key == STAT ? value + before + 1 : value;
    if (!is_file_name(file, key == STAT ? strcspn(file, ":") : before))
        return refuse(reader, "not a file name");
    /* The name goes into the exit record as it is. */
    if (key == STAT && strcspn(value, "\n") < before)
        return refuse(reader, "not a name");
    append(key == SET ? &reader->set : key == LIFT ? &reader->lift : &reader->stat, value);
    (key == SET ? &group->set : key == LIFT ? &group->lift : &group->stat)->count++;
    return true;
}

static bool read_path_entry(struct reader *reader, enum key key, char *value)
{
    struct spec *spec = reader->spec;
    if (!is_plain_path(value))
        return refuse(reader, "not a plain absolute path");
    if (key == MASK) {
        append(&spec->mask, value);
        return true;
    }
    if (key == SHARED) {
        spec->shared = value;
        return true;
    }
    if (key == SERVER) {
        spec->server = value;
        return true;
    }
    /* What the job has of its own is not to be covered. */
    if (is_at_or_below(value, "/proc") || is_at_or_below(value, "/dev") || strcmp(value, "/tmp") == 0)
        return refuse(reader, "the job has a private one of this path");
    if (key == WORK)
        spec->work = value;
    else if (key == RW && spec->rw.count == SPEC_WRITABLE_MAX)
        return refuse(reader, "too many writable paths");
    else
        append(key == RO ? &spec->ro : &spec->rw, value);
    return true;
}

static bool read_entry(struct reader *reader, enum key key, char *value)
{
    struct spec *spec = reader->spec;
    bool fine = true;
    switch (key) {
    case VERSION:
        return strcmp(value, PROTOCOL_VERSION) == 0 || refuse(reader, "not a version that this shim speaks");
    case ID:
        spec->id = value;
        return is_digits(value, ID_MAX) || refuse(reader, "not an id");
    case HOSTNAME:
        spec->hostname = value;
        return (*value && strlen(value) <= HOSTNAME_MAX) || refuse(reader, "not a host name");
    case UID_BASE: /* never the host's root */
        fine = read_number32(value, 1, UINT32_MAX - 1, &spec->uid_base);
        break;
    case ID_COUNT:
        fine = read_number32(value, 1, UINT32_MAX - 1, &spec->id_count);
        break;
    case GRACE_MS:
        fine = read_number32(value, 0, INT32_MAX, &spec->grace_ms);
        break;
    case OPEN_FILES:
        fine = read_number32(value, 1, INT32_MAX, &spec->open_files);
        break;
    case LOG_LIMIT:
        fine = read_number(value, 0, INT64_MAX, &spec->log_limit);
        break;
    case INPUT:
        spec->input = true;
        return !*value || refuse(reader, "input has a value");
    case TERMINAL:
        return read_size(value, spec) || refuse(reader, "not a size");
    case DISK:
        spec->disk = true;
        return !*value || refuse(reader, "disk has a value");
    case APART:
        spec->apart = true;
        return !*value || refuse(reader, "apart has a value");
    case TMP_BYTES: /* size=0 is no limit at all: tmpfs(5) */
        fine = read_number(value, 1, INT64_MAX, &spec->tmp_bytes);
        break;
    case CWD: /* whether it can be entered is for the job to find out */
        spec->cwd = value;
        return *value == '/' || refuse(reader, "not an absolute path");
    case OUTPUTS:
        spec->outputs = value;
        return is_plain_name(value) || refuse(reader, "not a file name");
    case WORK:
    case RO:
    case RW:
    case SHARED:
    case SERVER:
    case MASK:
        return read_path_entry(reader, key, value);
    case CGROUP2:
    case CGROUP:
        return open_group(reader, value, key == CGROUP2);
    case SET:
    case LIFT:
    case KILL:
    case OOM:
    case STAT:
        return read_group_entry(reader, key, value);
    case ENV:
        append(&spec->env, value);
        return (*value != '=' && strchr(value, '=')) || refuse(reader, "not K=V");
    case ARG:
        append(&spec->arg, value);
        return true;
    case END:
        return !*value || refuse(reader, "end has a value");
    case KEYS:
        break;
    }
    return fine || refuse(reader, "not a number in range");
}

static enum key find_key(const char *name, size_t length)
{
    enum key key = 0;
    while (key < KEYS && !(strlen(keys[key].name) == length && memcmp(keys[key].name, name, length) == 0))
        key++;
    return key;
}

static bool read_line(struct reader *reader, char *entry, bool first)
{
    char *separator = strchr(entry, '=');
    if (!separator)
        return refuse(reader, "no = in the entry");
    enum key key = find_key(entry, (size_t)(separator - entry));
    if (key == KEYS)
        return refuse(reader, "unknown key");
    if (first != (key == VERSION))
        return refuse(reader, "version is not the first entry");
    if (reader->seen[key] && keys[key].times != MANY)
        return refuse(reader, "repeated key");
    if (reader->seen[END])
        return refuse(reader, "bytes after end");
    reader->seen[key] = true;
    return read_entry(reader, key, separator + 1);
}

static bool is_complete(struct reader *reader)
{
    for (enum key key = 0; key < KEYS; key++)
        if (keys[key].times == ONCE && !reader->seen[key])
            return refuse(reader, "missing key");
    if (reader->spec->arg.count == 0)
        return refuse(reader, "no command");
    if (reader->spec->uid_base > UINT32_MAX - reader->spec->id_count)
        return refuse(reader, "id range too long");
    if (reader->spec->rows && reader->spec->input)
        return refuse(reader, "a terminal has an input of its own");
    return true;
}

static size_t count_entries(const char *text, size_t length)
{
    size_t count = 0;
    for (size_t i = 0; i < length; i++)
        count += text[i] == '\0';
    return count;
}

/* Every list gets room for every entry and a NULL: memory that is not touched costs nothing. */
static bool allot(struct reader *reader, size_t entries)
{
    struct strings *lists[] = {&reader->spec->ro,  &reader->spec->rw, &reader->spec->mask, &reader->spec->env,
                               &reader->spec->arg, &reader->set,      &reader->lift,       &reader->stat};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (!(lists[i]->at = calloc(entries + 1, sizeof(char *))))
            return false;
    return true;
}

bool spec_parse(struct spec *spec, char *text, size_t length, char detail[SPEC_DETAIL_SIZE])
{
    *spec = (struct spec){0};
    struct reader reader = {.spec = spec};
    size_t entries = count_entries(text, length), entry = 0;

    /* With a NUL at the end, every string below ends inside the text. */
    bool good = (length > 0 && text[length - 1] == '\0') || refuse(&reader, "does not end with a NUL");
    if (good && (entries > SPEC_ENTRIES_MAX || !allot(&reader, entries)))
        good = refuse(&reader, "too many entries");
    for (char *next = text; good && next < text + length; next += strlen(next) + 1)
        good = read_line(&reader, next, entry++ == 0);
    if (!good && entry)
        snprintf(detail, SPEC_DETAIL_SIZE, "entry %zu: %s", entry, reader.wrong);
    else if (!good || !is_complete(&reader))
        snprintf(detail, SPEC_DETAIL_SIZE, "%s", reader.wrong);
    return good && !reader.wrong;
}

void spec_read(struct spec *spec, int fd, const char *id)
{
    char *text = mmap(NULL, SPEC_BYTES_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (text == MAP_FAILED)
        die(STAGE_SPEC, "no memory");
    size_t length = 0;
    for (ssize_t got = 1; got > 0 && length < SPEC_BYTES_MAX; length += (size_t)got)
        if ((got = RETRY(read(fd, text + length, SPEC_BYTES_MAX - length))) < 0)
            die(STAGE_SPEC, "cannot be read");
    close(fd);

    char detail[SPEC_DETAIL_SIZE];
    errno = EINVAL;
    if (length == SPEC_BYTES_MAX)
        die(STAGE_SPEC, "too long");
    if (!spec_parse(spec, text, length, detail))
        die(STAGE_SPEC, "%s", detail);
    if (strcmp(spec->id, id) != 0)
        die(STAGE_SPEC, "meant for another job");
}
