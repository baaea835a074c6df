/* What the test programs share. */
#ifndef CHECK_H
#define CHECK_H

#include "sitter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the program with the place if a condition does not hold. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Checks the status of a call that was given `&err`; a failure has to come with an error that says the same. */
#define EXPECT(expected, call)                                                                                         \
    do {                                                                                                               \
        sitter_error *err = NULL;                                                                                      \
        sitter_status status_ = (call);                                                                                \
        if (status_ != (expected)) {                                                                                   \
            fprintf(stderr, "%s:%d: %s (%s) instead of %s: %s\n", __FILE__, __LINE__, sitter_status_name(status_),     \
                    sitter_error_message(err), sitter_status_name(expected), #call);                                   \
            exit(1);                                                                                                   \
        }                                                                                                              \
        CHECK((err == NULL) == (status_ == SITTER_OK));                                                                \
        CHECK(sitter_error_status(err) == status_);                                                                    \
        CHECK(status_ == SITTER_OK || strlen(sitter_error_message(err)) > 0);                                          \
        sitter_error_free(err);                                                                                        \
    } while (0)

/* The calls of this file need `err`, which EXPECT declares. */
static inline sitter_model *open_model(const sitter_engine *engine, const char *name) {
    sitter_model *model = NULL;
    EXPECT(SITTER_OK, sitter_model_open(engine, name, NULL, NULL, &model, &err));
    return model;
}

static inline sitter_image *grey_image(void) {
    uint8_t pixels[16 * 16 * 3];
    sitter_image *image = NULL;
    memset(pixels, 128, sizeof pixels);
    EXPECT(SITTER_OK, sitter_image_from_rgb8(pixels, 16, 16, 0, &image, &err));
    return image;
}

static inline sitter_dataset *small_dataset(void) {
    sitter_dataset *dataset = NULL;
    sitter_image *image = grey_image();
    EXPECT(SITTER_OK, sitter_dataset_new(&dataset, &err));
    EXPECT(SITTER_OK, sitter_dataset_add(dataset, image, NULL, &err));
    sitter_image_free(image);
    return dataset;
}

static inline sitter_train_options *fox_options(const sitter_model *model) {
    sitter_train_options *options = NULL;
    EXPECT(SITTER_OK, sitter_train_options_new(model, NULL, &options, &err));
    EXPECT(SITTER_OK, sitter_train_options_set_class_word(options, "fox", &err));
    return options;
}

static inline sitter_tokens *four_tokens(void) {
    const uint32_t codes[4] = {1, 2, 3, 4};
    sitter_tokens *tokens = NULL;
    EXPECT(SITTER_OK, sitter_tokens_from_array(codes, 2, 2, &tokens, &err));
    return tokens;
}

#endif
