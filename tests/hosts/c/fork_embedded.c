/* A real model in a forked child: after the parent has done everything with one, the child opens its own and does it all again,
 * and neither waits for threads that are not there. Linux: looks into /proc. The first argument is a scratch file. */
#include "verbs.h"

#include <dirent.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Whoever waits for ever is ended. */
enum { PATIENCE_S = 500 };

/* Threads of this process whose name begins so. */
static int threads_called(const char *begin) {
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    int found = 0;
    CHECK(tasks != NULL);
    while ((task = readdir(tasks)) != NULL) {
        char path[300], name[64] = "";
        FILE *file;
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        file = fopen(path, "r");
        if (file != NULL) {
            if (fgets(name, sizeof name, file) != NULL) {
                found += strncmp(name, begin, strlen(begin)) == 0;
            }
            fclose(file);
        }
    }
    closedir(tasks);
    return found;
}

static sitter_image *picture(uint32_t side) {
    sitter_image *image = NULL;
    uint8_t *pixels = malloc(3u * side * side);
    CHECK(pixels != NULL);
    for (uint32_t i = 0; i < 3u * side * side; i++) {
        pixels[i] = (uint8_t)(i * 7u + i / 311u);
    }
    EXPECT(SITTER_OK, sitter_image_from_rgb8(pixels, side, side, 0, &image, &err));
    free(pixels);
    return image;
}

static sitter_subject *taught(const sitter_model *model, const char *trainable, double dropout) {
    sitter_dataset *dataset = NULL;
    sitter_train_options *options = fox_options(model);
    sitter_image *image = picture(128);
    sitter_subject *subject = NULL;
    EXPECT(SITTER_OK, sitter_dataset_new(&dataset, &err));
    EXPECT(SITTER_OK, sitter_dataset_add(dataset, image, NULL, &err));
    EXPECT(SITTER_OK, sitter_train_options_set_embedding_steps(options, 1, &err));
    EXPECT(SITTER_OK, sitter_train_options_set_layer_steps(options, 1, &err));
    EXPECT(SITTER_OK, sitter_train_options_set_augment(options, 1, &err));
    EXPECT(SITTER_OK, sitter_train_options_set_batch_size(options, 1, &err));
    EXPECT(SITTER_OK, sitter_train_options_set_trainable(options, trainable, &err));
    EXPECT(SITTER_OK, sitter_train_options_set_dropout(options, dropout, &err));
    EXPECT(SITTER_OK, sitter_subject_train(model, dataset, options, NULL, &subject, &err));
    sitter_image_free(image);
    sitter_dataset_free(dataset);
    sitter_train_options_free(options);
    return subject;
}

/* So many pictures at once that a pass has more scores than candle would work through on one thread. */
static void drawn(const sitter_model *model, const sitter_subject *subject, const char *decoding, uint32_t window) {
    sitter_sample_options *options = NULL;
    sitter_tokens *tokens[64] = {NULL};
    EXPECT(SITTER_OK, sitter_sample_options_new(model, &options, &err));
    EXPECT(SITTER_OK, sitter_sample_options_set_width(options, 16, &err));
    EXPECT(SITTER_OK, sitter_sample_options_set_height(options, 16, &err));
    EXPECT(SITTER_OK, sitter_sample_options_set_decoding(options, decoding, &err));
    EXPECT(SITTER_OK, sitter_sample_options_set_window(options, window, &err));
    EXPECT(SITTER_OK, sitter_tokens_sample(model, "a [V] fox", &subject, 1, options, NULL, tokens, 64, &err));
    for (int i = 0; i < 64; i++) {
        sitter_tokens_free(tokens[i]);
    }
    sitter_sample_options_free(options);
}

static void everything(const char *scratch) {
    sitter_model *model = open_model(NULL, "embedded:");
    sitter_image *image = picture(192), *decoded = NULL;
    sitter_tokens *tokens = NULL;
    sitter_subject *subject = NULL;
    double score = 0.0;
    EXPECT(SITTER_OK, sitter_tokens_encode(model, image, 192, NULL, &tokens, &err));
    EXPECT(SITTER_OK, sitter_image_decode(model, tokens, NULL, &decoded, &err));
    sitter_tokens_free(tokens);
    sitter_image_free(image);
    image = picture(128);
    EXPECT(SITTER_OK, sitter_tokens_encode(model, image, 0, NULL, &tokens, &err));
    EXPECT(SITTER_OK,
           sitter_tokens_score(model, "a fox", NULL, 0, (const sitter_tokens *const *)&tokens, 1, NULL, &score, &err));
    CHECK(score > 0.0);
    subject = taught(model, "all", 0.0);
    EXPECT(SITTER_OK, sitter_subject_save(subject, scratch, &err));
    sitter_subject_free(subject);
    subject = NULL;
    /* Several megabytes, so that threads share them. */
    EXPECT(SITTER_OK, sitter_subject_load(scratch, &subject, &err));
    drawn(model, subject, "sequential", 16);
    drawn(model, subject, "speculative", 16);
    drawn(model, subject, "speculative_distribution", 16);
    sitter_subject_free(subject);
    sitter_subject_free(taught(model, "lora", 0.1));
    sitter_tokens_free(tokens);
    sitter_image_free(decoded);
    sitter_image_free(image);
    sitter_model_free(model);
    CHECK(threads_called("candle-bp") == 0);
}

int main(int argc, char **argv) {
    int result = -1;
    pid_t child;
    CHECK(argc == 2);
    alarm(PATIENCE_S);
    everything(argv[1]);
    CHECK(threads_called("sitter-") > 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(PATIENCE_S / 2);
        everything(argv[1]);
        _exit(7);
    }
    CHECK(waitpid(child, &result, 0) == child);
    CHECK(WIFEXITED(result) && WEXITSTATUS(result) == 7);
    return 0;
}
