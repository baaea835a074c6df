/* A pretended GPU: what NVIDIA's driver, cuBLAS, cuRAND and NVRTC have that Sitter calls. Memory is taken, copied and counted, and is
 * zero until something is copied there; kernels and products are counted and checked, and compute nothing. Copies from and to memory of
 * the host that stays in place are done as late as they may be.
 *
 * One library under five names, see tools/cuda/null.sh. What a GPU would refuse, or would do to memory that is not there, is said on
 * stderr and answered with an error. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;
typedef struct { u64 of[16]; } Uuid;

/* Codes of the driver; those of cuBLAS begin anew. */
enum { FINE = 0, INVALID = 1, NO_MEMORY = 2, NOT_FOUND = 500, BLAS_INVALID = 7 };

/* The limits of compute capability 8.0 and newer. */
enum { THREADS = 1024, ACROSS = 65535, SHARED = 48 << 10, SHARED_AT_MOST = 99 << 10 };

/* What is read by null_gpu_counts, in this order. Bytes, where not a number of calls. */
enum { LAUNCHES, PRODUCTS, OPERATIONS, UPLOADS, UPLOADED, DOWNLOADS, DOWNLOADED, COPIES, COPIED, FILLS, ALLOCATIONS, SYNCHRONISATIONS,
       MOVABLE, LIVE, PEAK, RESERVED, COUNTS };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static u64 counts[COUNTS], threshold;

static int refused(const char *what, const char *why)
{
    fprintf(stderr, "null GPU: %s: %s\n", what, why);
    return INVALID;
}

/* ---- memory: blocks in the order of their addresses ---- */

typedef struct { u64 at, size; } Block;
static Block *blocks;
static size_t held, room;

static u64 memory(void)
{
    const char *bytes = getenv("NULL_GPU_MEMORY");
    return bytes ? strtoull(bytes, NULL, 10) : 80ull << 30;
}

/* How many blocks begin at or before an address. */
static size_t before(u64 at)
{
    size_t low = 0, high = held;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].at <= at) low = middle + 1; else high = middle;
    }
    return low;
}

/* Whether `size` bytes from there on lie in one block. */
static int there(u64 at, u64 size)
{
    size_t n = before(at);
    return n > 0 && at + size <= blocks[n - 1].at + blocks[n - 1].size;
}

static int taken(u64 *at, size_t size)
{
    if (!size) return refused("allocation", "of no bytes");
    /* Granularity of a pool. */
    size_t whole = (size + 511) / 512 * 512;
    if (counts[LIVE] + whole > memory()) return NO_MEMORY;
    void *found = calloc(whole, 1);
    if (!found) return NO_MEMORY;
    if (held == room) {
        room = room ? 2 * room : 1024;
        blocks = realloc(blocks, room * sizeof *blocks);
    }
    size_t n = before((u64)found);
    memmove(blocks + n + 1, blocks + n, (held++ - n) * sizeof *blocks);
    blocks[n] = (Block){(u64)found, whole};
    *at = (u64)found;
    counts[ALLOCATIONS]++;
    counts[LIVE] += whole;
    if (counts[LIVE] > counts[PEAK]) counts[PEAK] = counts[LIVE];
    if (counts[LIVE] > counts[RESERVED]) counts[RESERVED] = counts[LIVE];
    return FINE;
}

/* ---- memory of the host that stays in place, and copies under way from and to it ---- */

static struct Stays { struct Stays *next; u64 at, size; } *staying;

static int stays(u64 at, u64 size)
{
    for (struct Stays *s = staying; s; s = s->next)
        if (s->at <= at && at + size <= s->at + s->size) return 1;
    return 0;
}

/* In the order in which they were asked for. What comes from the device was read when its turn came, which is at once. */
static struct Copy { struct Copy *next; u64 number; char *to, *from; size_t size; int read; } *under_way, **last = &under_way;
static u64 asked;

static void later(void *to, void *from, size_t size, int of_device)
{
    struct Copy *copy = malloc(sizeof *copy);
    *copy = (struct Copy){NULL, ++asked, to, from, size, of_device};
    if (of_device) copy->from = memcpy(malloc(size), from, size);
    *last = copy;
    last = &copy->next;
}

/* Does those up to a number. */
static void done(u64 number)
{
    while (under_way && under_way->number <= number) {
        struct Copy *copy = under_way;
        memcpy(copy->to, copy->from, copy->size);
        if (!(under_way = copy->next)) last = &under_way;
        if (copy->read) free(copy->from);
        free(copy);
    }
}

/* Does those that write to memory, which somebody is to see, and all before them. */
static void done_to(u64 at, u64 size)
{
    u64 number = 0;
    for (struct Copy *copy = under_way; copy; copy = copy->next)
        if ((u64)copy->to < at + size && at < (u64)copy->to + copy->size) number = copy->number;
    done(number);
}

static int given_back(u64 at)
{
    size_t n = before(at);
    if (!n || blocks[n - 1].at != at) return refused("free", "of what is not allocated");
    counts[LIVE] -= blocks[n - 1].size;
    done_to(at, blocks[n - 1].size);
    free((void *)at);
    memmove(blocks + n - 1, blocks + n, (held-- - n) * sizeof *blocks);
    return FINE;
}

/* A pool lets go of what is not in use when something waits for the GPU. */
static int waited(u64 number)
{
    done(number);
    counts[SYNCHRONISATIONS]++;
    if (counts[RESERVED] > threshold) counts[RESERVED] = counts[LIVE] > threshold ? counts[LIVE] : threshold;
    return FINE;
}

#define LOCKED(type, call) do { pthread_mutex_lock(&lock); type r_ = call; pthread_mutex_unlock(&lock); return r_; } while (0)

int cuMemAlloc_v2(u64 *at, size_t size) { LOCKED(int, taken(at, size)); }
int cuMemAllocAsync(u64 *at, size_t size, void *stream) { (void)stream; LOCKED(int, taken(at, size)); }
int cuMemFree_v2(u64 at) { LOCKED(int, given_back(at)); }
int cuMemFreeAsync(u64 at, void *stream) { (void)stream; LOCKED(int, given_back(at)); }

static int copied(void *to, const void *from, size_t size, int of_device[2], int counter)
{
    if (of_device[0] && !there((u64)to, size)) return refused("copy", "to memory that is not allocated");
    if (of_device[1] && !there((u64)from, size)) return refused("copy", "from memory that is not allocated");
    for (int i = 0; i < 2; i++) if (of_device[i]) done_to(i ? (u64)from : (u64)to, size);
    int both = of_device[0] && of_device[1];
    if (!both && stays(of_device[0] ? (u64)from : (u64)to, size)) later(to, (void *)from, size, of_device[1]);
    else memmove(to, from, size), counts[MOVABLE] += both ? 0 : size;
    counts[counter]++;
    counts[counter + 1] += size;
    return FINE;
}

static int up(u64 to, const void *from, size_t size) { LOCKED(int, copied((void *)to, from, size, (int[]){1, 0}, UPLOADS)); }
static int down(void *to, u64 from, size_t size) { LOCKED(int, copied(to, (void *)from, size, (int[]){0, 1}, DOWNLOADS)); }
static int across(u64 to, u64 from, size_t size) { LOCKED(int, copied((void *)to, (void *)from, size, (int[]){1, 1}, COPIES)); }
int cuMemcpyHtoD_v2(u64 to, const void *from, size_t size) { return up(to, from, size); }
int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t size, void *s) { (void)s; return up(to, from, size); }
int cuMemcpyDtoH_v2(void *to, u64 from, size_t size) { return down(to, from, size); }
int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t size, void *s) { (void)s; return down(to, from, size); }
int cuMemcpyDtoD_v2(u64 to, u64 from, size_t size) { return across(to, from, size); }
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t size, void *s) { (void)s; return across(to, from, size); }

static int filled(u64 at, unsigned char value, size_t size)
{
    if (!there(at, size)) return refused("fill", "of memory that is not allocated");
    counts[FILLS]++;
    /* What was never written stays untaken. */
    if (value) memset((void *)at, value, size);
    else for (size_t i = 0; i < size; i++) if (((char *)at)[i]) ((char *)at)[i] = 0;
    return FINE;
}

int cuMemsetD8_v2(u64 at, unsigned char value, size_t size) { LOCKED(int, filled(at, value, size)); }
int cuMemsetD8Async(u64 at, unsigned char value, size_t size, void *s) { (void)s; LOCKED(int, filled(at, value, size)); }

int cuMemGetInfo_v2(size_t *left, size_t *total)
{
    pthread_mutex_lock(&lock);
    *total = memory();
    *left = *total - counts[RESERVED];
    pthread_mutex_unlock(&lock);
    return FINE;
}

static int placed(void **at, size_t size)
{
    if (!size || getenv("NULL_GPU_NOTHING_STAYS") || !(*at = malloc(size))) return NO_MEMORY;
    /* What is read before it was written is no number. */
    memset(*at, 0xff, size);
    struct Stays *s = malloc(sizeof *s);
    *s = (struct Stays){staying, (u64)*at, size};
    staying = s;
    return FINE;
}

static int let_go(void *at)
{
    for (struct Stays **s = &staying; *s; s = &(*s)->next) {
        struct Stays *found = *s;
        if (found->at != (u64)at) continue;
        for (struct Copy *copy = under_way; copy; copy = copy->next)
            if (copy->to == at || copy->from == at) return refused("free", "of memory of the host that is being copied");
        *s = found->next;
        free(found);
        free(at);
        return FINE;
    }
    return refused("free", "of memory of the host that is not allocated");
}

int cuMemHostAlloc(void **at, size_t size, unsigned flags) { (void)flags; LOCKED(int, placed(at, size)); }
int cuMemFreeHost(void *at) { LOCKED(int, let_go(at)); }

/* The pool of a device; attributes by their numbers in cuda.h. */
int cuDeviceGetDefaultMemPool(void **pool, int device) { (void)device; *pool = counts; return FINE; }
int cuDeviceGetMemPool(void **pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }

int cuMemPoolGetAttribute(void *pool, int attribute, u64 *value)
{
    (void)pool;
    pthread_mutex_lock(&lock);
    *value = attribute == 4 ? threshold : attribute == 5 ? counts[RESERVED] : attribute == 7 ? counts[LIVE] : 0;
    pthread_mutex_unlock(&lock);
    return attribute == 4 || attribute == 5 || attribute == 7 ? FINE : INVALID;
}

int cuMemPoolSetAttribute(void *pool, int attribute, const u64 *value)
{
    (void)pool;
    if (attribute != 4) return INVALID;
    threshold = *value;
    return FINE;
}

int cuMemPoolTrimTo(void *pool, size_t least)
{
    (void)pool;
    pthread_mutex_lock(&lock);
    u64 kept = counts[LIVE] > least ? counts[LIVE] : least;
    if (counts[RESERVED] > kept) counts[RESERVED] = kept;
    pthread_mutex_unlock(&lock);
    return FINE;
}

/* ---- the device ---- */

int cuInit(unsigned flags) { (void)flags; return FINE; }
int cuDriverGetVersion(int *version) { *version = 13000; return FINE; }
int cuDeviceGetCount(int *count) { *count = 1; return FINE; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? FINE : INVALID; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; snprintf(name, size, "null GPU"); return FINE; }
int cuDeviceGetUuid_v2(Uuid *uuid, int device) { (void)device; memset(uuid, 0, 16); return FINE; }
int cuDeviceTotalMem_v2(size_t *total, int device) { (void)device; *total = memory(); return FINE; }

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    (void)device;
    switch (attribute) {
    case 10: *value = 32; break;              /* threads of a warp */
    case 16: *value = 108; break;             /* multiprocessors */
    case 75: *value = 8; break;               /* compute capability */
    case 76: *value = 0; break;
    case 97: *value = SHARED_AT_MOST; break;  /* shared memory of a block that asks for more */
    case 115: *value = 1; break;              /* pools of memory */
    default:
        fprintf(stderr, "null GPU: attribute %d of the device is not known\n", attribute);
        return INVALID;
    }
    return FINE;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = counts; return FINE; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return FINE; }
int cuCtxSetCurrent(void *context) { (void)context; return FINE; }
int cuCtxGetCurrent(void **context) { *context = counts; return FINE; }
int cuCtxSynchronize(void) { LOCKED(int, waited(asked)); }
int cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = counts; return FINE; }
int cuStreamDestroy_v2(void *stream) { (void)stream; return FINE; }
int cuStreamSynchronize(void *stream) { (void)stream; LOCKED(int, waited(asked)); }
int cuStreamIsCapturing(void *stream, int *status) { (void)stream; *status = 0; return FINE; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { (void)stream, (void)event, (void)flags; return FINE; }

/* An event is the number of the last copy before it; one that was never recorded is nothing to wait for. */
static int recorded(u64 *event) { *event = asked; return FINE; }
int cuEventCreate(void **event, unsigned flags) { (void)flags; return (*event = calloc(1, sizeof(u64))) ? FINE : NO_MEMORY; }
int cuEventDestroy_v2(void *event) { free(event); return FINE; }
int cuEventRecord(void *event, void *stream) { (void)stream; LOCKED(int, recorded(event)); }
int cuEventSynchronize(void *event) { LOCKED(int, waited(*(u64 *)event)); }

int cuGetErrorName(int code, const char **name)
{
    *name = code == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_INVALID_VALUE";
    return FINE;
}

int cuGetErrorString(int code, const char **text)
{
    *text = code == NO_MEMORY ? "out of memory" : code == NOT_FOUND ? "named symbol not found" : "invalid argument";
    return FINE;
}

/* ---- kernels ---- */

typedef struct Function {
    struct Function *next;
    char name[128];
    /* How many parameters there are and which may be addresses; none where the module says nothing about itself. */
    int parameters;
    u64 addresses;
    unsigned shared, shared_at_most;
    u64 *launched;
} Function;

typedef struct { Function *functions; char *ptx; } Module;

/* Launches by name, of all modules. */
static struct { char name[128]; u64 launched; } names[512];
static int name_count;

static u64 *launched(const char *name)
{
    for (int i = 0; i < name_count; i++)
        if (!strcmp(names[i].name, name)) return &names[i].launched;
    if (name_count == 512) return &names[511].launched;
    snprintf(names[name_count].name, sizeof names->name, "%s", name);
    return &names[name_count++].launched;
}

int cuModuleLoadData(void **module, const void *image)
{
    Module *made = calloc(1, sizeof *made);
    made->ptx = strdup(image);
    *module = made;
    return FINE;
}

int cuModuleUnload(void *module) { (void)module; return FINE; }

/* What a module says of a function: `.entry NAME(`, its parameters, and the shared memory in its body. PTX writes addresses as .u64;
 * a module of the pretended nvcc has the text of the source. */
static int described(Function *f, const char *ptx)
{
    size_t length = strlen(f->name);
    for (const char *at = ptx; (at = strstr(at, ".entry ")); ) {
        at += strlen(".entry ");
        if (strncmp(at, f->name, length) || !strchr("( \n", at[length])) continue;
        const char *open = strchr(at, '('), *close = open ? strchr(open, ')') : NULL;
        if (!close) return 0;
        for (const char *from = open + 1; from < close; f->parameters++) {
            const char *comma = memchr(from, ',', close - from), *end = comma ? comma : close;
            if (memchr(from, '*', end - from) || memmem(from, end - from, ".u64", 4)) f->addresses |= 1ull << f->parameters;
            from = end + 1;
        }
        const char *next = strstr(close, ".entry "), *shared = close;
        while ((shared = strstr(shared, ".shared ")) && (!next || shared < next)) {
            const char *line = strchr(shared, ';'), *size = strchr(shared, '[');
            if (size && line && size < line) f->shared += atoi(size + 1);
            shared++;
        }
        return 1;
    }
    return 0;
}

static int found(Function **function, Module *module, const char *name)
{
    for (Function *f = module->functions; f; f = f->next)
        if (!strcmp(f->name, name)) return *function = f, FINE;
    Function *f = calloc(1, sizeof *f);
    snprintf(f->name, sizeof f->name, "%s", name);
    f->shared_at_most = SHARED;
    if (strstr(module->ptx, ".entry ") && !described(f, module->ptx)) {
        refused(name, "is no kernel of its module");
        free(f);
        return NOT_FOUND;
    }
    f->launched = launched(name);
    f->next = module->functions;
    module->functions = f;
    *function = f;
    return FINE;
}

int cuModuleGetFunction(void **function, void *module, const char *name) { LOCKED(int, found((Function **)function, module, name)); }

int cuFuncSetAttribute(Function *f, int attribute, int value)
{
    if (attribute != 8 || value > SHARED_AT_MOST) return refused(f->name, "asks for what is not there");
    f->shared_at_most = value;
    return FINE;
}

/* A thread for each number is needed where a kernel has no loop; the first parameter says how many there are. */
static int one_each(const char *name) { return !strncmp(name, "im2col", 6); }

static int launch(Function *f, const unsigned grid[3], const unsigned block[3], unsigned shared, void **parameters)
{
    u64 threads = (u64)block[0] * block[1] * block[2], all = threads * grid[0] * grid[1] * grid[2];
    if (!all) return refused(f->name, "an empty grid or block");
    if (threads > THREADS || block[2] > 64) return refused(f->name, "too many threads in a block");
    if (grid[0] > INT32_MAX || grid[1] > ACROSS || grid[2] > ACROSS) return refused(f->name, "too large a grid");
    if (shared + f->shared > f->shared_at_most) return refused(f->name, "too much shared memory");
    for (int i = 0; i < f->parameters; i++) {
        if (!parameters[i]) return refused(f->name, "too few parameters");
        if (!(f->addresses >> i & 1)) continue;
        u64 at = *(u64 *)parameters[i];
        /* Sizes are .u64, too. */
        if (at >= 1ull << 40 && !there(at, 0)) return refused(f->name, "an address that is not allocated");
    }
    if (one_each(f->name) && *(u64 *)parameters[0] > all) return refused(f->name, "more numbers than threads");
    counts[LAUNCHES]++;
    ++*f->launched;
    /* The one thing that is computed: by a few numbers a library finds out whether the GPU works. */
    if (!strcmp(f->name, "affine_f32") && *(u64 *)parameters[0] <= 4 && !*(u64 *)parameters[2]) {
        float *from = *(float **)parameters[3], *to = *(float **)parameters[4];
        for (u64 i = 0; i < *(u64 *)parameters[0]; i++) to[i] = from[i] * *(float *)parameters[5] + *(float *)parameters[6];
    }
    return FINE;
}

int cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **parameters, void **extra)
{
    (void)stream, (void)extra;
    LOCKED(int, launch(f, (unsigned[]){gx, gy, gz}, (unsigned[]){bx, by, bz}, shared, parameters));
}

/* A kernel that was not launched through the driver, see the archive that tools/cuda/fake/nvcc makes. */
void null_gpu_launched(const char *name)
{
    pthread_mutex_lock(&lock);
    counts[LAUNCHES]++;
    ++*launched(name);
    pthread_mutex_unlock(&lock);
}

/* ---- cuBLAS ---- */

int cublasCreate_v2(void **handle) { *handle = counts; return FINE; }
int cublasDestroy_v2(void *handle) { (void)handle; return FINE; }
int cublasSetStream_v2(void *handle, void *stream) { (void)handle, (void)stream; return FINE; }

static u64 bytes_of(int type) { return type == 0 ? 4 : type == 2 || type == 14 ? 2 : type == 1 ? 8 : 0; }

/* Matrices of `rows` x `columns`, columns `ld` numbers apart, matrices `stride` apart. */
static int matrices(const char *which, u64 at, int type, int rows, int columns, int ld, long long stride, int batch)
{
    if (!bytes_of(type)) return refused(which, "an unknown type of numbers");
    if (rows <= 0 || columns <= 0 || batch <= 0) return refused(which, "no numbers");
    if (ld < rows) return refused(which, "columns that overlap");
    if (batch > 1 && stride < 0) return refused(which, "a negative stride");
    u64 last = (u64)(batch - 1) * stride + (u64)(columns - 1) * ld + rows;
    return there(at, last * bytes_of(type)) ? FINE : refused(which, "memory that is not allocated");
}

int cublasGemmStridedBatchedEx(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, u64 a, int at, int lda,
                               long long sa, u64 b, int bt, int ldb, long long sb, const void *beta, u64 c, int ct, int ldc,
                               long long sc, int batch, int compute, int algorithm)
{
    (void)handle, (void)alpha, (void)beta, (void)compute, (void)algorithm;
    pthread_mutex_lock(&lock);
    int wrong = matrices("left factor", a, at, ta ? k : m, ta ? m : k, lda, sa, batch)
        || matrices("right factor", b, bt, tb ? n : k, tb ? k : n, ldb, sb, batch)
        || matrices("product", c, ct, m, n, ldc, sc, batch)
        || (batch > 1 && sc < (long long)ldc * (n - 1) + m && refused("product", "matrices that overlap"));
    if (!wrong) {
        counts[PRODUCTS]++;
        counts[OPERATIONS] += 2ull * m * n * k * batch;
    }
    pthread_mutex_unlock(&lock);
    return wrong ? BLAS_INVALID : FINE;
}

/* ---- cuRAND and NVRTC ---- */

int curandCreateGenerator(void **generator, int type) { (void)type; *generator = counts; return FINE; }
int curandDestroyGenerator(void *generator) { (void)generator; return FINE; }
int curandSetPseudoRandomGeneratorSeed(void *generator, u64 seed) { (void)generator, (void)seed; return FINE; }
int curandSetGeneratorOffset(void *generator, u64 offset) { (void)generator, (void)offset; return FINE; }
int curandSetStream(void *generator, void *stream) { (void)generator, (void)stream; return FINE; }

int nvrtcCreateProgram(void **program, const char *source, const char *name, int n, const char **headers, const char **include)
{
    (void)source, (void)name, (void)n, (void)headers, (void)include;
    *program = counts;
    return FINE;
}
int nvrtcCompileProgram(void *program, int n, const char **options) { (void)program, (void)n, (void)options; return FINE; }
int nvrtcDestroyProgram(void **program) { (void)program; return FINE; }
int nvrtcGetPTXSize(void *program, size_t *size) { (void)program; *size = 1; return FINE; }
int nvrtcGetPTX(void *program, char *ptx) { (void)program; *ptx = 0; return FINE; }

/* ---- for tests ---- */

/* The counts so far, COUNTS of them; the peak begins anew. */
void null_gpu_counts(u64 *out)
{
    pthread_mutex_lock(&lock);
    memcpy(out, counts, sizeof counts);
    counts[PEAK] = counts[LIVE];
    pthread_mutex_unlock(&lock);
}

/* Launches since this was asked last, a line for each kernel: its number and name. */
void null_gpu_launches(char *text, size_t size)
{
    pthread_mutex_lock(&lock);
    size_t used = 0;
    *text = 0;
    for (int i = 0; i < name_count; i++) {
        if (names[i].launched && used < size) used += snprintf(text + used, size - used, "%llu %s\n",
            (unsigned long long)names[i].launched, names[i].name);
        names[i].launched = 0;
    }
    pthread_mutex_unlock(&lock);
}
