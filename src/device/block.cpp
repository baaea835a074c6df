// What src/ops/fused.cu finds on a GPU, on the CPU, see twin.rs. With __CUDACC__ the threads of a block are contexts that take turns:
// each goes on until it waits for others of its warp or block.
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__

typedef unsigned long long Whole;
struct Place {
    unsigned x, y, z;
};
extern "C" {
Place blockIdx, blockDim = {1, 1, 1}, gridDim, threadIdx;
}

inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// A kernel of any parameters: the convention of calls puts whole numbers and those of floating point apart, and what there is too much
// does no harm.
typedef void (*Kernel)(Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole,
                       Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, Whole, float, float, float, float,
                       float, float, float, float);

static void call(Kernel kernel, const Whole *w, const float *x)
{
    kernel(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15], w[16], w[17], w[18], w[19],
           w[20], w[21], w[22], w[23], w[24], w[25], w[26], w[27], x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]);
}

#ifdef __CUDACC__
#define __launch_bounds__(threads)
#define __shared__ static

// The most threads of a block, those of a warp, and bytes of a stack.
enum { THREADS = 512, LANES = 32, STACK = 1 << 16 };

// How often all that were waited for had come, and how many have come since.
struct Barrier {
    unsigned passed, come;
};

static ucontext_t turns, threads[THREADS];
static bool ended[THREADS];
static char *stacks;
static Barrier of_block_, of_warps[THREADS / LANES];
static Whole given[THREADS];
static Kernel kernel;
static const Whole *whole;
static const float *floating;

static void wait(Barrier *barrier, unsigned all)
{
    const unsigned passed = barrier->passed, own = threadIdx.x;
    if (++barrier->come == all) {
        barrier->come = 0;
        barrier->passed++;
    }
    while (barrier->passed == passed) swapcontext(&threads[own], &turns);
}

static void __syncthreads() { wait(&of_block_, blockDim.x); }

template <typename N> static N __shfl_xor_sync(unsigned, N x, int far)
{
    const unsigned own = threadIdx.x;
    Barrier *warp = &of_warps[own / LANES];
    memcpy(&given[own], &x, sizeof x);
    wait(warp, LANES);
    memcpy(&x, &given[own ^ far], sizeof x);
    wait(warp, LANES);
    return x;
}

static void thread()
{
    const unsigned own = threadIdx.x;
    call(kernel, whole, floating);
    ended[own] = true;
    for (;;) swapcontext(&threads[own], &turns);
}

extern "C" void run_block(Kernel k, const Whole *w, const float *x, unsigned count)
{
    if (!stacks) stacks = (char *)malloc((size_t)THREADS * STACK);
    kernel = k, whole = w, floating = x;
    blockDim.x = count;
    for (unsigned i = 0; i < count; i++) {
        getcontext(&threads[i]);
        threads[i].uc_stack.ss_sp = stacks + (size_t)i * STACK;
        threads[i].uc_stack.ss_size = STACK;
        threads[i].uc_link = nullptr;
        makecontext(&threads[i], thread, 0);
        ended[i] = false;
    }
    for (unsigned left = count; left > 0;) {
        left = 0;
        for (unsigned i = 0; i < count; i++) {
            if (ended[i]) continue;
            threadIdx.x = i;
            swapcontext(&turns, &threads[i]);
            left += !ended[i];
        }
    }
}
#else
extern "C" void run_block(Kernel kernel, const Whole *whole, const float *floating, unsigned) { call(kernel, whole, floating); }
#endif
