// What the C++ header adds to the C one: ownership, exceptions, functions that throw. On the fake model.
#include "sitter.hpp"
#include "sitter.hpp" // twice does no harm

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <thread>
#include <type_traits>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::cerr << __FILE__ << ':' << __LINE__ << ": not so: " << #condition << '\n';                            \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

std::string version_seen_by_another_file();

template <class T, class Call> static T thrown(Call &&call) {
    try {
        call();
    } catch (const T &error) {
        return error;
    }
    std::cerr << "nothing was thrown\n";
    std::exit(1);
}

static sitter::Image grey(std::uint8_t level = 128) {
    const std::vector<std::uint8_t> pixels(16 * 16 * 3, level);
    return sitter::Image::from_rgb8(pixels.data(), {16, 16});
}

static sitter::Subject learn(const sitter::Model &model, sitter::Run *run = nullptr) {
    sitter::Dataset pictures;
    pictures.add(grey(), "a [V] fox").add(grey(90), "[V] again");
    CHECK(pictures.count() == 2);
    sitter::TrainOptions how(model);
    return model.train(pictures, how.class_word("fox"), run);
}

// Shared things are copied by reference, builders cannot be copied at all.
static_assert(std::is_copy_constructible_v<sitter::Model> && std::is_copy_assignable_v<sitter::Subject>);
static_assert(std::is_nothrow_move_constructible_v<sitter::Tokens> && std::is_move_assignable_v<sitter::Image>);
static_assert(!std::is_copy_constructible_v<sitter::Run> && std::is_move_constructible_v<sitter::Run>);
static_assert(!std::is_copy_constructible_v<sitter::Dataset> && !std::is_copy_constructible_v<sitter::TrainOptions>);
static_assert(std::is_same_v<sitter::Model, sitter::v1::Model>, "the ABI's major version is in the names");

static void objects_share_what_they_refer_to() {
    sitter::Tokens tokens = sitter::Tokens::from_codes({1, 2, 3, 4}, {2, 2});
    const sitter::Tokens same = tokens;
    CHECK(same.get() == tokens.get());
    tokens = sitter::Tokens::from_codes({5, 6}, {2, 1});
    CHECK(same.codes() == (std::vector<std::uint32_t>{1, 2, 3, 4}) && tokens.grid().width == 2);
    const sitter::Tokens taken = std::move(tokens);
    CHECK(taken.grid().height == 1);
    tokens = taken;
    CHECK(tokens.codes().size() == 2);
    // A model outlives the variable that it was opened into.
    std::vector<sitter::Model> models;
    {
        const sitter::Engine engine(sitter::EngineOptions().threads(1).max_jobs(2));
        const sitter::Model model = sitter::Model::open("fake:steps=1", nullptr, &engine);
        models.assign(3, model);
    }
    CHECK(models.back().decode(tokens).size().width == 2);
}

static void failures_are_exceptions() {
    const auto missing = thrown<sitter::Error>([] { sitter::Model::open("/no/such/folder"); });
    CHECK(missing.status() == SITTER_E_NOT_FOUND && missing.group() == 2);
    CHECK(std::string(missing.what()).find("/no/such/folder") != std::string::npos);
    const auto invalid = thrown<sitter::Error>([] { sitter::SampleOptions().temperature(-1.0); });
    CHECK(invalid.status() == SITTER_E_INVALID_ARGUMENT && invalid.group() == 1);
    CHECK(thrown<sitter::Error>([] { sitter::Tokens::from_codes({1}, {2, 2}); }).group() == 1);
    sitter::Tokens moved = sitter::Tokens::from_codes({1}, {1, 1});
    const sitter::Tokens taken = std::move(moved);
    CHECK(thrown<sitter::Error>([&] { moved.codes(); }).status() == SITTER_E_NULL_POINTER);
    const sitter::Model panics = sitter::Model::open("fake:panic_at=2");
    CHECK(thrown<sitter::Error>([&] { learn(panics); }).status() == SITTER_E_PANIC);
}

static void failures_can_be_values() {
    auto missing = sitter::attempt([] { return sitter::Image::open("/no/such.png"); });
    CHECK(!missing && missing.error().status() == SITTER_E_NOT_FOUND);
    CHECK(thrown<sitter::Error>([&] { missing.value(); }).status() == SITTER_E_NOT_FOUND);
    auto image = sitter::attempt([] { return grey(); });
    CHECK(image && image->size().width == 16 && (*image).size().height == 16 && image.value().rgb8().size() == 768);
    const auto saved = sitter::attempt([&] { image->save_png("/no/such/folder/x.png"); });
    CHECK(!saved && saved.error().group() == 2);
    CHECK(sitter::attempt([] { sitter::require_abi(); }));
    // Other people's exceptions are not ours to turn into values.
    CHECK(thrown<int>([] { sitter::attempt([] { throw 7; }); }) == 7);
}

static void progress_is_told_and_can_stop() {
    const sitter::Model model = sitter::Model::open("fake:steps=3");
    int events = 0;
    sitter::Run counting([&](const sitter::Event &event) {
        CHECK(event.done <= event.total && (event.stage != SITTER_STAGE_EMBEDDING || !std::isnan(event.value)));
        events++;
        return true;
    });
    sitter::Run moved = std::move(counting);
    const sitter::Subject subject = learn(model, &moved);
    CHECK(events >= 6 && moved.snapshot().stage == SITTER_STAGE_LAYERS);
    CHECK(thrown<sitter::Error>([&] { learn(model, &moved); }).status() == SITTER_E_INVALID_STATE);

    sitter::Run stopping([](const sitter::Event &event) { return event.done < 2; });
    CHECK(thrown<sitter::Cancelled>([&] { learn(model, &stopping); }).status() == SITTER_E_CANCELLED);

    // Whole rows of what is drawn, inside the progress function too.
    std::vector<std::uint32_t> rows;
    sitter::Run *drawing = nullptr;
    sitter::Run watched([&](const sitter::Event &) {
        const auto drawn = drawing->tokens(1);
        rows.push_back(drawn ? drawn->grid().height : 0);
        return true;
    });
    drawing = &watched;
    CHECK(!watched.tokens());
    model.sample("x", {}, nullptr, 2, &watched);
    CHECK(rows.front() == 0 && rows.back() == 2 && watched.tokens()->codes().size() == 4 && !watched.tokens(2));

    sitter::Run early;
    early.finish_early();
    CHECK(learn(model, &early).losses().size() == 3);
}

// Whatever a progress function throws comes out of the call, not through the library.
static void exceptions_of_progress_come_out_of_the_call() {
    const sitter::Model model = sitter::Model::open("fake:steps=3");
    for (std::uint64_t at = 1; at <= 3; at++) {
        sitter::Run run([at](const sitter::Event &event) -> bool {
            return event.done < at ? true : throw std::out_of_range("the host's own");
        });
        const auto error = thrown<std::out_of_range>([&] { model.sample("x", {}, nullptr, 2, &run); });
        CHECK(std::string(error.what()) == "the host's own");
    }
    const auto number = thrown<int>([&] {
        sitter::Run run([](const sitter::Event &) -> bool { throw 42; });
        sitter::attempt([&] { sitter::Model::open("fake:open=1", nullptr, nullptr, &run); });
    });
    CHECK(number == 42);
    CHECK(model.sample("x").size() == 1);
}

static void another_thread_can_cancel() {
    const sitter::Model model = sitter::Model::open("fake:steps=20000,step_ms=1");
    std::atomic<bool> begun{false};
    sitter::Run run([&](const sitter::Event &) { return begun = true; });
    std::thread other([&] {
        while (!begun) {
            std::this_thread::yield();
        }
        run.cancel();
    });
    thrown<sitter::Cancelled>([&] { model.encode(grey(), 0, &run); });
    other.join();
}

static bool has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

static void options_take_every_kind_of_value() {
    sitter::TrainOptions how("lora");
    how.class_word("fox").flip(true).seed(1ULL << 60).layer_learning_rate(0.25).layers({1, 3}).batch_size(2);
    how.templates({"a photo of {}", "{} again"}).initial_embedding({0.5F, 1.5F}).checkpoint_path("here");
    const std::string json = how.json();
    CHECK(has(json, "\"class_word\":\"fox\"") && has(json, "\"flip\":true") && has(json, "\"seed\":1152921504606846976"));
    CHECK(has(json, "\"layers\":[1,3]") && has(json, "[\"a photo of {}\",\"{} again\"]") && has(json, "[0.5,1.5]"));
    CHECK(has(json, "\"lora\"") && has(json, "0.25") && has(json, "\"here\""));
    how.layers({}).templates({}).initial_embedding({});
    CHECK(has(how.json(), "\"layers\":[]") && has(how.json(), "\"templates\":[]"));
    CHECK(has(sitter::ModelOptions().device("cpu").dtype("f32").json(), "\"f32\""));
    CHECK(has(sitter::SampleOptions::for_folder("embedded:").json(), "\"width\":128"));
    CHECK(has(sitter::TrainOptions::for_folder("embedded:", "lora").json(), "\"image_size\":128"));
    const sitter::Model model = sitter::Model::open("fake:");
    CHECK(has(sitter::SampleOptions(model).json(), "\"width\":16") && has(sitter::SampleOptions().json(), "\"width\":768"));
}

static void facts_pixels_and_scores() {
    const sitter::Model model = sitter::Model::open("fake:");
    CHECK(has(model.info(), "\"family\":\"fake\"") && has(learn(model).info(), "\"fox\""));
    const auto scores = model.score("four", {sitter::Tokens::from_codes({1}, {1, 1}), model.encode(grey())});
    CHECK(scores == (std::vector<double>{4.0, 4.0}));
    sitter::SampleOptions drawing(model);
    const auto drawn = model.sample("x", {learn(model)}, &drawing.seed(9), 3);
    CHECK(drawn.size() == 3 && drawn[2].codes() == std::vector<std::uint32_t>(4, 11));
    const std::vector<float> floats = model.decode(drawn[0]).f32();
    CHECK(floats.size() == 12 && std::abs(floats[0] - 9.0F / 255.0F) < 1e-6F);
    CHECK(sitter::Image::from_f32(floats.data(), {2, 2}).rgb8()[11] == 9);
    CHECK(sitter::has_feature("embedded_model") && has(sitter::devices(), "cpu") && has(sitter::build_info(), "version"));
}

static void pictures_are_measured() {
    sitter::EvaluatorOptions how;
    const sitter::Evaluator evaluator = sitter::Evaluator::open(how.dino("fake:steps=2"));
    CHECK(has(how.json(), "fake:steps=2") && has(evaluator.info(), "\"size\":4"));
    CHECK(evaluator.dino({grey(), grey(9)}) == sitter::Evaluator::Vectors(2, std::vector<float>(4, 1.0F)));
    CHECK(evaluator.clip_image({grey()}).size() == 1 && evaluator.clip_text({"a", "b", "c"}).size() == 3);
    CHECK(evaluator.clip_text({}).empty());
    sitter::Evaluation evaluation("D");
    evaluation.identifier("[V]").add(SITTER_ROLE_PICTURE, grey(), "a {} fox").add_file(SITTER_ROLE_REFERENCE, "a.png");
    const std::string scores = evaluator.score(evaluation);
    CHECK(has(scores, "\"protocol\":\"D\"") && has(scores, "\"pictures\":1"));
    CHECK(thrown<sitter::Error>([] { sitter::Evaluation("E"); }).status() == SITTER_E_INVALID_ARGUMENT);
    int events = 0;
    sitter::Run run([&](const sitter::Event &) { return ++events < 2; });
    CHECK(thrown<sitter::Cancelled>([&] { evaluator.score(evaluation, &run); }).status() == SITTER_E_CANCELLED);
}

// `root` is the folder of this repository.
static void leakage_says_how_far_the_class_has_gone_to_the_subject(const std::string &root) {
    sitter::EvaluatorOptions how;
    const sitter::Evaluator evaluator = sitter::Evaluator::open(how.dino(root + "/tests/golden/evaluate/dino"));
    const std::string subjects = root + "/assets/subjects/";
    const auto share = [&](const std::string &drawn_of_the_class) {
        sitter::Evaluation evaluation;
        evaluation.add_file(SITTER_ROLE_PICTURE, subjects + "fox/1.png").add_file(SITTER_ROLE_REFERENCE, subjects + "fox/1.png");
        evaluation.add_file(SITTER_ROLE_CLASS_PICTURE, subjects + drawn_of_the_class);
        const std::string scores = evaluator.score(evaluation.add_file(SITTER_ROLE_UNTOUCHED, subjects + "dog/1.png"));
        return std::stod(scores.substr(scores.find("\"share\":") + 8));
    };
    CHECK(std::abs(share("fox/1.png") - 1) < 1e-6 && std::abs(share("dog/1.png")) < 1e-6);
}

// The log function lives as long as the engine, wherever that is kept alive.
static void the_log_function_lives_with_the_engine() {
    auto alive = std::make_shared<int>(0);
    const std::weak_ptr<int> watched = alive;
    {
        sitter::EngineOptions options;
        options.log_level(SITTER_LOG_DEBUG).log([alive](std::int32_t, const char *) { throw std::runtime_error("lost"); });
        alive.reset();
        const sitter::Engine engine(options);
        CHECK(engine.drain_log().empty());
        const sitter::Model model = sitter::Model::open("fake:", nullptr, &engine);
        CHECK(!watched.expired());
    }
    CHECK(watched.expired());
}

int main(int count, char **words) {
    sitter::require_abi();
    objects_share_what_they_refer_to();
    failures_are_exceptions();
    failures_can_be_values();
    progress_is_told_and_can_stop();
    exceptions_of_progress_come_out_of_the_call();
    another_thread_can_cancel();
    options_take_every_kind_of_value();
    facts_pixels_and_scores();
    pictures_are_measured();
    if (count > 1) {
        leakage_says_how_far_the_class_has_gone_to_the_subject(words[1]);
    }
    the_log_function_lives_with_the_engine();
    CHECK(sitter::version() == version_seen_by_another_file());
    return 0;
}
