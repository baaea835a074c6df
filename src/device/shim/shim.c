/* One NVIDIA library, found when it is first needed instead of when the program starts.
 *
 * Compiled once for each library, see build.rs, with
 *   LIBRARY   its name for linkers, as in -lcublas: cublas
 *   SONAME    its name for the loader: "libcublas.so.13"
 *   SYMBOLS   the file that lists its functions: "symbols/cublas.h"
 * trampolines.S holds the functions themselves. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define SLOTS JOIN(sitter_shim_slots_, LIBRARY)
#define RESOLVE JOIN(sitter_shim_resolve_, LIBRARY)
#define PROBLEM JOIN(sitter_shim_problem_, LIBRARY)
#define HIDDEN __attribute__((visibility("hidden")))

#define CODE(name) #name,
#define TEXT(name) #name,
static const char *const names[] = {
#include SYMBOLS
};

/* Where each trampoline goes; trampolines.S fills it with the way to RESOLVE. */
extern HIDDEN void *SLOTS[];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *library;
static char problem[512];

/* Says what the loader said last. */
static void *opened(const char *path)
{
    void *found = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (!found) {
        const char *reason = dlerror();
        snprintf(problem, sizeof problem, "%s", reason ? reason : "cannot be loaded");
    }
    return found;
}

/* Where `folder` holds the library, from there. */
static void *opened_in(const char *root, const char *folder)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s/" SONAME, root, folder);
    return length < (int)sizeof path && access(path, F_OK) == 0 ? opened(path) : NULL;
}

/* Beside the code that this is part of: in the same folder, or in that of NVIDIA's Python packages. */
static void *opened_beside_us(void)
{
    static const char *const folders[] = {".", "../nvidia/cu13/lib", "../nvidia/cudnn/lib"};
    Dl_info us;
    char root[2048];
    if (!dladdr(&lock, &us) || !us.dli_fname || strlen(us.dli_fname) >= sizeof root)
        return NULL;
    strcpy(root, us.dli_fname);
    char *slash = strrchr(root, '/');
    if (!slash)
        return NULL;
    *slash = 0;
    void *found = NULL;
    for (size_t i = 0; !found && i < sizeof folders / sizeof *folders; i++)
        found = opened_in(root, folders[i]);
    return found;
}

static void *opened_in_toolkit(void)
{
    const char *const roots[] = {getenv("CUDA_HOME"), getenv("CUDA_PATH"), "/usr/local/cuda", "/usr/local/nvidia"};
    void *found = NULL;
    for (size_t i = 0; !found && i < sizeof roots / sizeof *roots; i++)
        if (roots[i] && *roots[i])
            found = opened_in(roots[i], "lib64");
    return found;
}

/* A failure is not remembered: the host may load the library, or install it, later. */
static void *opened_anywhere(void)
{
    pthread_mutex_lock(&lock);
    if (!library) library = opened(SONAME);
    if (!library) library = opened_beside_us();
    if (!library) library = opened_in_toolkit();
    void *found = library;
    pthread_mutex_unlock(&lock);
    return found;
}

/* Copies what keeps the library from being loaded to `text`; empty if nothing does. */
HIDDEN void PROBLEM(char *text, size_t capacity)
{
    int found = opened_anywhere() != NULL;
    pthread_mutex_lock(&lock);
    snprintf(text, capacity, "%s", found ? "" : problem);
    pthread_mutex_unlock(&lock);
}

/* The function `index` of the list, or NULL if this machine has no such function. */
HIDDEN void *RESOLVE(size_t index)
{
    void *found = opened_anywhere();
    void *function = found ? dlsym(found, names[index]) : NULL;
    if (function)
        __atomic_store_n(&SLOTS[index], function, __ATOMIC_RELEASE);
    return function;
}
