/* Calls a library through its shim: first it is missing, then it appears in argv[1]. */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fake_sum(int a, long b, double c, unsigned char d, double *e, long f, float g, int h, long i, double j, int k);
int fake_absent(void);
const char *fake_name(int code);
void sitter_shim_problem_fake(char *text, size_t capacity);

static pthread_barrier_t barrier;

/* Whole arguments in registers, on the stack, and floating ones between them: a sum that is exact. */
static void *sums(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 100; i++) {
        double sum = 0;
        int status = fake_sum(1, 1L << 40, 0.5, 200, &sum, -3, 0.25f, i, 7, 1e6, 1 << 30);
        assert(status == 77);
        assert(sum == 1 + (double)(1L << 40) + 0.5 + 200 - 3 + 0.25 + i + 7 + 1e6 + (1 << 30));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    char problem[512], small[4];
    double sum = -1;
    assert(argc == 2);
    unsetenv("CUDA_HOME");
    sitter_shim_problem_fake(problem, sizeof problem);
    assert(strstr(problem, "libfake.so.7"));
    sitter_shim_problem_fake(small, sizeof small);
    assert(strlen(small) == 3 && !strncmp(small, problem, 3));
    assert(fake_sum(1, 2, 3, 4, &sum, 5, 6, 7, 8, 9, 10) == 34 && sum == -1);
    assert(strstr(fake_name(5), "not on this machine"));

    setenv("CUDA_HOME", argv[1], 1);
    pthread_t threads[8];
    pthread_barrier_init(&barrier, NULL, 8);
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, sums, NULL);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert(!strcmp(fake_name(5), "five") && !strcmp(fake_name(6), "another"));
    assert(fake_absent() == 34);
    sitter_shim_problem_fake(problem, sizeof problem);
    assert(!*problem);
    puts("as promised");
    return 0;
}
