/* The layout of the one struct that programs see. The numbers are those of version 1.0 on every platform; they only grow. */
#include "check.h"

#define FIELD(name, type, at)                                                                                          \
    _Static_assert(offsetof(sitter_event, name) == (at), #name " moved");                                              \
    _Static_assert(_Generic(((sitter_event *)0)->name, type: 1, default: 0), #name " has another type")

FIELD(struct_size, uint32_t, 0);
FIELD(stage, int32_t, 4);
FIELD(done, uint64_t, 8);
FIELD(total, uint64_t, 16);
FIELD(elapsed_ms, uint64_t, 24);
FIELD(value, double, 32);
FIELD(item, uint32_t, 40);
FIELD(item_count, uint32_t, 44);
_Static_assert(sizeof(sitter_event) >= 48, "the struct shrank");
#if SITTER_ABI_MINOR > 0
FIELD(warnings, uint64_t, 48);
#endif

/* Only with the header of 1.0 is the size known. */
#if SITTER_ABI_MINOR == 0
_Static_assert(sizeof(sitter_event) == 48, "the struct of 1.0 has 48 bytes");
#endif

int main(void) {
    sitter_run *run = NULL;
    unsigned char bytes[sizeof(sitter_event) + 16];
    sitter_event event;
    EXPECT(SITTER_OK, sitter_run_new(&run, &err));

    /* What the library says of its own struct is what the compiler says. */
    EXPECT(SITTER_OK, sitter_run_snapshot(run, &event, sizeof event, &err));
    CHECK(event.struct_size >= sizeof event);
    CHECK(event.stage == 0 && event.done == 0 && event.total == 0 && event.value != event.value);
    CHECK(event.item == 0 && event.item_count == 1);

    /* A host of an older header gets as much as it knows, and nothing behind it is touched. */
    memset(bytes, 0xAA, sizeof bytes);
    EXPECT(SITTER_OK, sitter_run_snapshot(run, (sitter_event *)(void *)bytes, 8, &err));
    CHECK(memcmp(bytes, &event, 8) == 0);
    for (size_t i = 8; i < sizeof bytes; i++) {
        CHECK(bytes[i] == 0xAA);
    }

    /* A host of a newer header gets zeros where this library has nothing. */
    memset(bytes, 0xAA, sizeof bytes);
    EXPECT(SITTER_OK, sitter_run_snapshot(run, (sitter_event *)(void *)bytes, sizeof bytes, &err));
    CHECK(memcmp(bytes, &event, 48) == 0);
    for (size_t i = event.struct_size; i < sizeof bytes; i++) {
        CHECK(bytes[i] == 0);
    }
    sitter_run_free(run);
    return 0;
}
