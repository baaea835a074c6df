// Tokens of several grids in C++, through a model that draws scale after scale. The first argument is that model.
#include "sitter.hpp"

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                               \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const sitter::Tokens small = sitter::Tokens::from_codes({9, 1, 2, 3, 4, 5, 6}, {{1, 1}, {3, 2}});
    CHECK(small.grids().size() == 2 && small.grids()[1].width == 3 && small.grid().height == 2 && small.codes()[0] == 9);
    CHECK(sitter::Tokens::from_codes({1, 2}, {2, 1}).grids().size() == 1);
    const std::vector<sitter::Tokens::Grid> wrong = {{1, 1}, {2, 2}};
    try {
        sitter::Tokens::from_codes({1, 2}, wrong);
        CHECK(false);
    } catch (const sitter::Error &error) {
        CHECK(error.status() == SITTER_E_INVALID_ARGUMENT);
    }

    const sitter::Model model = sitter::Model::open(argv[1]);
    sitter::SampleOptions how(model);
    how.guidance_by_scale({4.0f, 3.0f}).temperature_by_scale({0.5f}).top_p(0.9);
    std::vector<std::size_t> seen;
    sitter::Run *drawing = nullptr;
    // Where nothing happens for a while, an event comes again, or one before the first.
    sitter::Run watched([&](const sitter::Event &) {
        const auto drawn = drawing->tokens();
        if (drawn && (seen.empty() || seen.back() != drawn->grids().size())) {
            seen.push_back(drawn->grids().size());
        }
        return true;
    });
    drawing = &watched;
    const sitter::Tokens drawn = model.sample("a red dog", {}, &how, 1, &watched).front();
    CHECK(seen == (std::vector<std::size_t>{1, 2, 3, 4, 5, 6, 7}));
    const sitter::Tokens copy = sitter::Tokens::from_codes(drawn.codes(), drawn.grids());
    const sitter::Image picture = model.decode(copy);
    CHECK(picture.size().width == 64 && picture.rgb8() == model.decode(drawn).rgb8());
    const sitter::Tokens encoded = model.encode(picture);
    CHECK(encoded.grids().size() == 7);
    const std::vector<double> scores = model.score("a red dog", {drawn, copy, encoded});
    CHECK(scores[0] == scores[1] && scores[2] > 0);
    return 0;
}
