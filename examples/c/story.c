/*
 * The whole story in C: open a model, teach it a fox from four pictures, draw the fox in the snow.
 *
 * With an installed library:
 *     cc -std=c99 examples/c/story.c $(pkg-config --cflags --libs sitter) -o story
 * From a checkout, after cargo build --release:
 *     cc -std=c99 -Iinclude examples/c/story.c -Ltarget/release -lsitter -Wl,-rpath,target/release -o story
 * Then, in the repository root (two or three minutes; with 4 steps a few seconds and a poor picture):
 *     ./story [MODEL [STEPS [FOLDER_FOR_RESULTS]]]
 */
#include "sitter.h"

#include <stdio.h>
#include <stdlib.h>

/* Prints what went wrong and frees the error. True if all is well. */
static int well(sitter_status status, sitter_error **err) {
    if (status != SITTER_OK) {
        fprintf(stderr, "%s: %s\n%s", sitter_status_name(status), sitter_error_message(*err), sitter_error_detail(*err));
    }
    sitter_error_free(*err);
    *err = NULL;
    return status == SITTER_OK;
}

/* Called after each step and at least every 100 ms; any other result than SITTER_CONTINUE cancels the call. */
static int32_t show(void *user_data, const sitter_event *event) {
    const char *what = user_data;
    printf("\r%s: stage %d, %llu of %llu ", what, (int)event->stage, (unsigned long long)event->done,
           (unsigned long long)event->total);
    if (event->stage == SITTER_STAGE_EMBEDDING || event->stage == SITTER_STAGE_LAYERS) {
        printf("(loss %.3f) ", event->value);
    }
    fflush(stdout);
    return SITTER_CONTINUE;
}

/* A run serves one call. NULL, which every call takes, if it cannot be made. */
static sitter_run *watch(const char *what) {
    sitter_run *run = NULL;
    if (sitter_run_new(&run, NULL) == SITTER_OK) {
        sitter_run_set_callback(run, show, (void *)what, NULL);
    }
    return run;
}

static sitter_subject *teach(const sitter_model *model, uint32_t steps, sitter_error **err) {
    sitter_dataset *dataset = NULL;
    sitter_train_options *options = NULL;
    sitter_run *run = watch("train");
    sitter_subject *subject = NULL;
    int ok = well(sitter_dataset_new(&dataset, err), err);
    for (int i = 1; ok && i <= 4; i++) {
        char path[64];
        sitter_image *image = NULL;
        snprintf(path, sizeof path, "assets/subjects/fox/%d.png", i);
        ok = well(sitter_image_open(path, &image, err), err) &&
             well(sitter_dataset_add(dataset, image, NULL, err), err);
        sitter_image_free(image); /* the dataset has a reference of its own */
    }
    ok = ok && well(sitter_train_options_new(model, "two_stage", &options, err), err) &&
         well(sitter_train_options_set_class_word(options, "fox", err), err);
    if (steps > 0) { /* otherwise what the model recommends */
        ok = ok && well(sitter_train_options_set_embedding_steps(options, steps / 2, err), err) &&
             well(sitter_train_options_set_layer_steps(options, steps - steps / 2, err), err);
    }
    if (ok) {
        well(sitter_subject_train(model, dataset, options, run, &subject, err), err);
        printf("\n");
    }
    sitter_dataset_free(dataset);
    sitter_train_options_free(options);
    sitter_run_free(run);
    return subject;
}

static sitter_image *draw(const sitter_model *model, const sitter_subject *subject, sitter_error **err) {
    sitter_sample_options *options = NULL;
    sitter_run *run = watch("draw");
    sitter_tokens *tokens = NULL;
    sitter_image *image = NULL;
    if (well(sitter_sample_options_new(model, &options, err), err) &&
        well(sitter_sample_options_set_seed(options, 7, err), err) &&
        well(sitter_tokens_sample(model, "a photo of a [V] fox in the snow", &subject, 1, options, run, &tokens, 1, err),
             err)) {
        printf("\n");
        well(sitter_image_decode(model, tokens, NULL, &image, err), err);
    }
    sitter_sample_options_free(options);
    sitter_run_free(run);
    sitter_tokens_free(tokens);
    return image;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "embedded:";
    uint32_t steps = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    const char *folder = argc > 3 ? argv[3] : ".";
    char subject_path[512], picture_path[512];
    snprintf(subject_path, sizeof subject_path, "%s/fox.safetensors", folder);
    snprintf(picture_path, sizeof picture_path, "%s/fox.png", folder);

    sitter_error *err = NULL;
    sitter_model *model = NULL;
    sitter_subject *learned = NULL, *subject = NULL;
    sitter_image *image = NULL;
    int ok = well(sitter_require_abi(SITTER_ABI_MAJOR, SITTER_ABI_MINOR, &err), &err) &&
             well(sitter_model_open(NULL, name, NULL, NULL, &model, &err), &err);
    if (ok) {
        learned = teach(model, steps, &err);
        ok = learned != NULL && well(sitter_subject_save(learned, subject_path, &err), &err) &&
             well(sitter_subject_load(subject_path, &subject, &err), &err); /* as another program would */
    }
    if (ok) {
        image = draw(model, subject, &err);
        ok = image != NULL && well(sitter_image_save_png(image, picture_path, &err), &err);
    }
    if (ok) {
        printf("wrote %s and %s\n", subject_path, picture_path);
    }
    sitter_image_free(image);
    sitter_subject_free(subject);
    sitter_subject_free(learned);
    sitter_model_free(model);
    return ok ? 0 : 1;
}
