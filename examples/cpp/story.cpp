// The whole story in C++17: open a model, teach it a fox from four pictures, draw the fox in the snow.
//
// With an installed library:
//     c++ -std=c++17 examples/cpp/story.cpp $(pkg-config --cflags --libs sitter) -o story
// or find_package(sitter) in CMake and link with sitter::sitter. From a checkout, after cargo build --release:
//     c++ -std=c++17 -Iinclude examples/cpp/story.cpp -Ltarget/release -lsitter -Wl,-rpath,target/release -o story
// Then, in the repository root (two or three minutes; with 4 steps a few seconds and a poor picture):
//     ./story [MODEL [STEPS [FOLDER_FOR_RESULTS]]]
#include "sitter.hpp"

#include <iostream>

static sitter::Run watch(const char *what) {
    return sitter::Run([what](const sitter::Event &event) {
        std::cout << '\r' << what << ": stage " << event.stage << ", " << event.done << " of " << event.total << ' '
                  << std::flush;
        return true; // false cancels
    });
}

int main(int argc, char **argv) try {
    const std::string name = argc > 1 ? argv[1] : "embedded:";
    const auto steps = static_cast<std::uint32_t>(argc > 2 ? std::stoul(argv[2]) : 0);
    const std::string folder = argc > 3 ? argv[3] : ".";

    sitter::require_abi();
    const sitter::Model model = sitter::Model::open(name);

    sitter::Dataset pictures;
    for (const char *number : {"1", "2", "3", "4"}) {
        pictures.add(sitter::Image::open(std::string("assets/subjects/fox/") + number + ".png"));
    }
    sitter::TrainOptions how(model, "two_stage");
    how.class_word("fox");
    if (steps > 0) { // otherwise what the model recommends
        how.embedding_steps(steps / 2).layer_steps(steps - steps / 2);
    }
    sitter::Run training = watch("train");
    model.train(pictures, how, &training).save(folder + "/fox.safetensors");

    const sitter::Subject fox = sitter::Subject::load(folder + "/fox.safetensors");
    sitter::SampleOptions drawing(model);
    drawing.seed(7);
    sitter::Run sampling = watch("draw");
    const auto drawn = model.sample("a photo of a [V] fox in the snow", {fox}, &drawing, 1, &sampling);
    model.decode(drawn.front()).save_png(folder + "/fox.png");
    std::cout << "\nwrote " << folder << "/fox.safetensors and " << folder << "/fox.png\n";
} catch (const sitter::Error &error) {
    std::cerr << sitter_status_name(error.status()) << ": " << error.what() << '\n' << error.detail();
    return 1;
}
