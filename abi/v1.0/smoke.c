/*
 * A program of ABI 1.0, to be compiled with the header beside it and run on every later library of major 1. Never changed:
 * what it relies on is what 1.0 promised.
 *
 *     smoke MODEL FOLDER    says "all as in 1.0"
 */
#include "sitter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "smoke.c:%d: not so: %s\n", __LINE__, #condition);                                         \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define OK(call) CHECK((call) == SITTER_OK)

struct seen {
    unsigned events;
    int32_t last_stage;
    uint64_t last_done;
    double last_value;
    int cancel;
};

static int32_t see(void *user_data, const sitter_event *event) {
    struct seen *seen = user_data;
    CHECK(event->struct_size >= 48 && event->item_count >= 1 && event->item < event->item_count);
    CHECK(event->stage != seen->last_stage || event->done >= seen->last_done);
    seen->events++;
    seen->last_stage = event->stage;
    seen->last_done = event->done;
    seen->last_value = event->value;
    return seen->cancel ? 0 : SITTER_CONTINUE;
}

static sitter_run *run_for(struct seen *seen, int cancel) {
    sitter_run *run = NULL;
    memset(seen, 0, sizeof *seen);
    seen->cancel = cancel;
    OK(sitter_run_new(&run, NULL));
    OK(sitter_run_set_callback(run, see, seen, NULL));
    return run;
}

static sitter_image *checkered(uint32_t side) {
    uint8_t *pixels = malloc((size_t)side * side * 3);
    sitter_image *image = NULL;
    CHECK(pixels != NULL);
    for (uint32_t i = 0; i < side * side; i++) {
        memset(pixels + (size_t)i * 3, (i / 8 + i / side / 8) % 2 ? 200 : 40, 3);
    }
    OK(sitter_image_from_rgb8(pixels, side, side, 0, &image, NULL));
    free(pixels);
    return image;
}

static void errors(void) {
    sitter_error *err = NULL;
    sitter_model *model = NULL;
    CHECK(sitter_model_open(NULL, "/no/such/folder", NULL, NULL, &model, &err) == SITTER_E_NOT_FOUND);
    CHECK(model == NULL && err != NULL && sitter_error_status(err) == SITTER_E_NOT_FOUND);
    CHECK(strstr(sitter_error_message(err), "/no/such/folder") != NULL && sitter_error_detail(err) != NULL);
    sitter_error_free(err);
    CHECK(sitter_model_open(NULL, NULL, NULL, NULL, &model, NULL) == SITTER_E_NULL_POINTER);
    CHECK(strcmp(sitter_status_name(SITTER_E_CANCELLED), "SITTER_E_CANCELLED") == 0);
    CHECK(strcmp(sitter_status_name(-7), "unknown status") == 0);
    CHECK(sitter_require_abi(1, 0xFFFF, NULL) == SITTER_E_ABI_MISMATCH);
}

static sitter_engine *engine(void) {
    sitter_engine_options *options = NULL;
    sitter_engine *engine = NULL;
    OK(sitter_engine_options_new(&options, NULL));
    OK(sitter_engine_options_set_threads(options, 1, NULL));
    OK(sitter_engine_options_set_max_jobs(options, 1, NULL));
    OK(sitter_engine_options_set_log_level(options, SITTER_LOG_INFO, NULL));
    CHECK(sitter_engine_options_set_max_jobs(options, 0, NULL) == SITTER_E_INVALID_ARGUMENT);
    OK(sitter_engine_new(options, &engine, NULL));
    sitter_engine_options_free(options);
    return engine;
}

int main(int argc, char **argv) {
    char subject_path[512], picture_path[512], json[4096];
    const char *templates[2] = {"a photo of {}", "a picture of {}"};
    const sitter_subject *subjects[1];
    const sitter_tokens *pictures[2];
    struct seen seen;
    double scores[2] = {0.0, 0.0}, losses[4];
    int32_t stages[4];
    uint64_t steps[4];
    uint32_t width = 0, height = 0, side;
    size_t needed = 0, count = 0;
    sitter_model_options *opening = NULL;
    sitter_train_options *training = NULL;
    sitter_sample_options *drawing = NULL;
    sitter_model *model = NULL;
    sitter_dataset *dataset = NULL;
    sitter_subject *learned = NULL, *subject = NULL;
    sitter_tokens *encoded = NULL, *drawn[2] = {NULL, NULL}, *copy = NULL;
    sitter_image *image, *decoded = NULL, *read = NULL;
    sitter_engine *own = engine();
    sitter_run *run;
    uint32_t *codes;
    uint8_t *pixels;

    CHECK(argc == 3);
    snprintf(subject_path, sizeof subject_path, "%s/smoke.safetensors", argv[2]);
    snprintf(picture_path, sizeof picture_path, "%s/smoke.png", argv[2]);
    OK(sitter_require_abi(SITTER_ABI_MAJOR, SITTER_ABI_MINOR, NULL));
    CHECK(sitter_abi_version() >> 16 == 1);
    CHECK(strlen(sitter_version_string()) > 0 && sitter_build_info_json()[0] == '{');
    CHECK(sitter_has_feature("embedded_model") == 1 && sitter_has_feature("no such thing") == 0);
    OK(sitter_devices_json(json, sizeof json, &needed, NULL));
    errors();

    OK(sitter_model_options_new(&opening, NULL));
    OK(sitter_model_options_set_device(opening, "cpu", NULL));
    OK(sitter_model_options_set_dtype(opening, "f32", NULL));
    OK(sitter_model_open(own, argv[1], opening, NULL, &model, NULL));
    sitter_model_options_free(opening);
    OK(sitter_model_info_json(model, json, sizeof json, &needed, NULL));
    CHECK(strstr(json, "\"family\"") != NULL && strlen(json) + 1 == needed);

    OK(sitter_sample_options_new(model, &drawing, NULL));
    OK(sitter_sample_options_get_json(drawing, json, sizeof json, NULL, NULL));
    CHECK(strstr(json, "\"width\"") != NULL);
    side = strstr(json, "\"width\":96") != NULL ? 96 : 16;
    OK(sitter_sample_options_set_seed(drawing, 11, NULL));
    OK(sitter_sample_options_set_temperature(drawing, 0.9, NULL));
    OK(sitter_sample_options_set_top_k(drawing, 50, NULL));
    OK(sitter_sample_options_set_guidance(drawing, 1.0, NULL));
    CHECK(sitter_sample_options_set_temperature(drawing, -1.0, NULL) == SITTER_E_INVALID_ARGUMENT);

    image = checkered(side);
    run = run_for(&seen, 0);
    OK(sitter_tokens_encode(model, image, 0, run, &encoded, NULL));
    sitter_run_free(run);
    CHECK(seen.events > 0 && seen.last_stage == SITTER_STAGE_ENCODE);
    OK(sitter_tokens_grid(encoded, &width, &height, NULL));
    OK(sitter_tokens_copy(encoded, NULL, 0, &count, NULL));
    CHECK(width > 0 && count == (size_t)width * height);
    codes = malloc(count * sizeof *codes);
    CHECK(codes != NULL);
    CHECK(sitter_tokens_copy(encoded, codes, count - 1, &needed, NULL) == SITTER_E_BUFFER_TOO_SMALL && needed == count);
    OK(sitter_tokens_copy(encoded, codes, count, NULL, NULL));
    OK(sitter_tokens_from_array(codes, width, height, &copy, NULL));
    free(codes);

    OK(sitter_dataset_new(&dataset, NULL));
    OK(sitter_dataset_add(dataset, image, NULL, NULL));
    OK(sitter_dataset_count(dataset, &count, NULL));
    CHECK(count == 1);
    OK(sitter_train_options_new(model, "two_stage", &training, NULL));
    OK(sitter_train_options_set_class_word(training, "dog", NULL));
    OK(sitter_train_options_set_identifier(training, "[W]", NULL));
    OK(sitter_train_options_set_embedding_steps(training, 1, NULL));
    OK(sitter_train_options_set_layer_steps(training, 1, NULL));
    OK(sitter_train_options_set_augment(training, 0, NULL));
    OK(sitter_train_options_set_batch_size(training, 1, NULL));
    OK(sitter_train_options_set_seed(training, 3, NULL));
    OK(sitter_train_options_set_templates(training, templates, 2, NULL));
    CHECK(sitter_train_options_set_flip(training, 2, NULL) == SITTER_E_INVALID_ARGUMENT);
    run = run_for(&seen, 1);
    CHECK(sitter_subject_train(model, dataset, training, run, &learned, NULL) == SITTER_E_CANCELLED && learned == NULL);
    CHECK(sitter_subject_train(model, dataset, training, run, &learned, NULL) == SITTER_E_INVALID_STATE);
    sitter_run_free(run);
    run = run_for(&seen, 0);
    OK(sitter_subject_train(model, dataset, training, run, &learned, NULL));
    CHECK(seen.last_stage == SITTER_STAGE_LAYERS && seen.last_value > 0.0);
    sitter_run_free(run);
    sitter_train_options_free(training);
    sitter_dataset_free(dataset);
    OK(sitter_subject_losses(learned, NULL, NULL, NULL, 0, &count, NULL));
    CHECK(count >= 1 && count <= 4);
    OK(sitter_subject_losses(learned, stages, steps, losses, 4, &needed, NULL));
    CHECK(needed == count && stages[0] == SITTER_STAGE_EMBEDDING && steps[0] == 0);
    OK(sitter_subject_save(learned, subject_path, NULL));
    OK(sitter_subject_load(subject_path, &subject, NULL));
    OK(sitter_subject_info_json(subject, NULL, 0, &needed, NULL));
    CHECK(needed > 2);

    subjects[0] = subject;
    run = run_for(&seen, 0);
    OK(sitter_tokens_sample(model, "a photo of a [W] dog", subjects, 1, drawing, run, drawn, 2, NULL));
    CHECK(seen.last_stage == SITTER_STAGE_SAMPLE && drawn[0] != NULL && drawn[1] != NULL);
    sitter_run_free(run);
    sitter_sample_options_free(drawing);
    pictures[0] = drawn[0];
    pictures[1] = copy;
    OK(sitter_tokens_score(model, "a photo of a [W] dog", subjects, 1, pictures, 2, NULL, scores, NULL));
    CHECK(scores[0] > 0.0 && scores[1] > 0.0);

    OK(sitter_image_decode(model, drawn[1], NULL, &decoded, NULL));
    OK(sitter_image_size(decoded, &width, &height, NULL));
    OK(sitter_image_copy_f32(decoded, NULL, 0, &count, NULL));
    CHECK(count == (size_t)width * height * 3);
    OK(sitter_image_save_png(decoded, picture_path, NULL));
    OK(sitter_image_open(picture_path, &read, NULL));
    pixels = malloc(count * 2);
    CHECK(pixels != NULL);
    OK(sitter_image_copy_rgb8(decoded, pixels, count, NULL, NULL));
    OK(sitter_image_copy_rgb8(read, pixels + count, count, NULL, NULL));
    CHECK(memcmp(pixels, pixels + count, count) == 0);
    free(pixels);
    OK(sitter_engine_drain_log(own, json, sizeof json, NULL, NULL));

    CHECK(sitter_model_ref(model) == model);
    sitter_model_free(model);
    sitter_model_free(model);
    sitter_engine_free(own);
    sitter_image_free(read);
    sitter_image_free(decoded);
    sitter_image_free(image);
    sitter_tokens_free(drawn[0]);
    sitter_tokens_free(drawn[1]);
    sitter_tokens_free(copy);
    sitter_tokens_free(encoded);
    sitter_subject_free(subject);
    sitter_subject_free(learned);
    printf("all as in 1.0\n");
    return 0;
}
