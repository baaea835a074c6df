/* Successes, failures and panics: the library writes nothing to standard output and standard error. The Rust test looks at
   what they were directed to. With "closed" there is nowhere to write to. */
#include "verbs.h"

#include <unistd.h>

int main(int argc, char **argv) {
    sitter_model *model, *sound;
    sitter_image *image = NULL;
    if (argc > 1 && strcmp(argv[1], "closed") == 0) {
        close(1);
        close(2);
    }
    model = open_model(NULL, "fake:steps=2,panic_at=2");
    sound = open_model(NULL, "fake:steps=2");
    for (int verb = OPEN; verb < VERBS; verb++) {
        EXPECT(SITTER_E_PANIC, do_verb(verb, NULL, model, "fake:steps=2,panic_at=1,open=1", NULL, &err));
        EXPECT(SITTER_OK, do_verb(verb, NULL, sound, "fake:", NULL, &err));
    }
    EXPECT(SITTER_E_NOT_FOUND, sitter_image_open("/no/such/picture.png", &image, &err));
    EXPECT(SITTER_E_NOT_FOUND, do_verb(OPEN, NULL, NULL, "/no/such/model", NULL, &err));
    sitter_model_free(model);
    model = open_model(NULL, "embedded:");
    sitter_model_free(model);
    sitter_model_free(sound);
    return 0;
}
