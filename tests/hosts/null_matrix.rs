//! Writes a C program that calls every function of the header with every pointer NULL in turn, with all of them NULL, and
//! with every wrong kind of handle in the place of each handle. It reads the header, so no function can be forgotten.

use crate::at;
use std::fmt::Write;

pub struct Argument {
    /// As it is written in the header, without the name: `const struct sitter_model *`.
    pub ty: String,
    pub name: String,
}

pub struct Function {
    pub result: String,
    pub name: String,
    pub arguments: Vec<Argument>,
}

/// The header of today.
fn header() -> String {
    std::fs::read_to_string(at("include/sitter.h")).unwrap()
}

/// The functions of a header in cbindgen's form.
pub fn functions(header: &str) -> Vec<Function> {
    let mut text = header.to_string();
    while let Some(start) = text.find("/*") {
        let end = start + text[start..].find("*/").unwrap() + 2;
        text.replace_range(start..end, "");
    }
    let split = |declarator: &str| {
        let declarator = declarator.split_whitespace().collect::<Vec<_>>().join(" ");
        let end = declarator.trim_end().rfind(|c: char| !c.is_alphanumeric() && c != '_').unwrap() + 1;
        (declarator[..end].trim().to_string(), declarator[end..].to_string())
    };
    let declarations = text.split("SITTER_API").filter_map(|part| part.split_once(';').map(|(d, _)| d));
    let functions = declarations.filter_map(|declaration| {
        let (head, arguments) = declaration.split_once('(')?;
        let (result, name) = split(head);
        let arguments = arguments.trim_end().trim_end_matches(')').split(',').filter(|a| a.trim() != "void");
        let arguments = arguments.map(split).map(|(ty, name)| Argument { ty, name }).collect();
        name.starts_with("sitter_").then_some(Function { result, name, arguments })
    });
    functions.collect()
}

impl Argument {
    fn is_pointer(&self) -> bool {
        self.ty.ends_with('*') || self.ty.ends_with("_fn")
    }

    /// The noun of a handle that is handed in.
    fn handle(&self) -> Option<&str> {
        let noun = self.ty.trim_start_matches("const ").strip_prefix("struct ")?.strip_suffix(" *")?;
        (noun != "sitter_event" && !noun.contains('*')).then_some(noun)
    }

    /// The noun of a handle that comes out.
    fn output(&self) -> Option<&str> {
        let noun = self.ty.strip_prefix("struct ")?.strip_suffix(" **")?;
        (noun != "sitter_error").then_some(noun)
    }

    /// The noun of an array of handles.
    fn handles(&self) -> Option<&str> {
        self.ty.strip_prefix("const struct ")?.strip_suffix(" *const *")
    }

    /// Something that the function accepts.
    fn valid(&self, function: &str) -> String {
        if let Some(noun) = self.output() {
            return format!("&out_{noun}");
        }
        if let Some(noun) = self.handles() {
            return format!("array_{noun}");
        }
        if let Some(noun) = self.handle() {
            return match (noun, function) {
                ("sitter_run", "sitter_run_tokens") => "drawn_run".into(),
                ("sitter_run", f) if !f.starts_with("sitter_run_") => "NULL".into(),
                ("sitter_dataset", "sitter_subject_train") => "training_set".into(),
                _ => format!("h_{noun}"),
            };
        }
        match (self.ty.as_str(), self.name.as_str()) {
            ("struct sitter_error **", _) => "&err",
            ("struct sitter_event *", _) => "&event",
            (_, "event_size") => "sizeof event",
            ("const char *", "path") if function == "sitter_model_open" => "\"fake:steps=1\"",
            // Nothing can be told of a fake model.
            ("const char *", "path") if function == "sitter_model_estimate_json" => "\"embedded:\"",
            ("const char *", "path") if function.ends_with("_options_for_folder") => "\"embedded:\"",
            ("const char *", "path") if function.starts_with("sitter_subject") => "subject_path",
            ("const char *", "path") => "image_path",
            ("const char *", "protocol") => "\"D\"",
            ("const char *", "caption") => "\"a [V] fox\"",
            ("const char *", "method") => "\"lora\"",
            ("const char *", "dino") => "\"fake:steps=1\"",
            ("const char *", "device") => "\"cpu\"",
            ("const char *", "dtype") => "\"f32\"",
            ("const char *", "trainable") => "\"qkv\"",
            ("const char *", "adaptation") => "\"low_rank\"",
            ("const char *", "optimizer_device") => "\"host\"",
            ("const char *", "optimizer_state") => "\"bf16\"",
            ("const char *", "decoding") => "\"speculative\"",
            ("const char *", "recompute" | "text_encoder") => "\"auto\"",
            ("const char *", "teacher") => "\"reference\"",
            ("const char *", _) => "\"fox\"",
            ("const char *const *", _) => "texts",
            ("char *", _) => "chars",
            ("uint8_t *" | "const uint8_t *", _) => "bytes",
            ("const uint32_t *", "widths" | "heights") => "ones",
            ("uint32_t *" | "const uint32_t *", _) => "words",
            ("int32_t *", _) => "numbers",
            ("uint64_t *", _) => "longs",
            ("float *" | "const float *", _) => "floats",
            ("double *", _) => "doubles",
            ("size_t *", _) => "&size",
            ("void *", _) => "&size",
            ("sitter_event_fn", _) => "go_on",
            ("sitter_log_fn", _) => "log_line",
            ("sitter_drop_fn", _) => "drop",
            ("size_t", "index") => "0",
            ("size_t", "capacity") => "sizeof chars",
            ("size_t", "row_stride_bytes") => "0",
            ("uint32_t", "window") => "16",
            ("uint32_t", "minor") => "0",
            ("uint32_t", "width" | "height") if function.contains("sample_options") => "96",
            ("double", "guidance") => "3.0",
            ("double", _) => "0.5",
            (_, "picture") => "0",
            (_, _) if !self.is_pointer() => "1",
            (ty, name) => panic!("no value for {ty} {name} of {function}"),
        }
        .into()
    }

    /// Whether the header says that it may be NULL.
    fn may_be_null(&self, function: &str) -> bool {
        match self.name.as_str() {
            "err" | "run" if self.output().is_none() => !function.starts_with("sitter_run_") || self.name == "err",
            "needed" | "caption" | "method" | "initial_word" | "checkpoint_path" | "sample_prompt" => true,
            "user_data" | "drop_user_data" | "log" | "callback" => true,
            // Arrays that can be left out.
            "stages" | "steps" | "losses" => true,
            "dino" | "clip" | "lpips" => true,
            // The subject's word, and what a picture shows, may be unknown when it is measured.
            "identifier" | "text" => function.starts_with("sitter_evaluation"),
            "engine" => ["sitter_model_open", "sitter_evaluator_open"].contains(&function),
            "options" => {
                let without = ["sitter_engine_new", "sitter_model_open", "sitter_tokens_sample"];
                without.contains(&function) || function == "sitter_model_estimate_json"
            }
            "sample" | "train" => function == "sitter_model_estimate_json",
            "model" => function.ends_with("_options_new"),
            _ => false,
        }
    }
}

impl Function {
    fn call(&self, values: &[String]) -> String {
        format!("{}({})", self.name, values.join(", "))
    }

    /// The statements of one call, which is to give a status, or any if that is not known.
    fn statement(&self, values: &[String], what: &str, expected: &str) -> String {
        let call = self.call(values);
        if self.result != "sitter_status" || self.name == "sitter_error_status" {
            return match self.result.as_str() {
                "void" => format!("    {call};\n"),
                "const char *" => format!("    CHECK({call} != NULL);\n"),
                r if r.ends_with('*') => format!("    CHECK({call} == NULL);\n"),
                _ => format!("    (void){call};\n"),
            };
        }
        let mut text = String::new();
        for output in self.arguments.iter().filter_map(Argument::output) {
            // The library has to write before it looks at anything else.
            let _ = writeln!(text, "    out_{output} = (void *)&size;");
        }
        let _ = writeln!(text, "    status = {call};");
        let _ = writeln!(text, "    is(\"{}, {what}\", status, {expected});", self.name);
        for (argument, value) in self.arguments.iter().zip(values) {
            if let (Some(output), true) = (argument.output(), value.starts_with('&')) {
                let _ = writeln!(text, "    CHECK((out_{output} != NULL) == (status == SITTER_OK));");
                let _ = writeln!(text, "    {output}_free(out_{output});");
            }
        }
        text
    }

    /// All calls of this function.
    fn matrix(&self, nouns: &[String]) -> String {
        let mut text = String::new();
        let valid: Vec<String> = self.arguments.iter().map(|a| a.valid(&self.name)).collect();
        let with = |i: usize, value: &str| {
            let mut values = valid.clone();
            values[i] = value.to_string();
            values
        };
        // A valid free or ref would take what the next calls need.
        let repeatable = !self.name.ends_with("_free") && !self.name.ends_with("_ref");
        if repeatable && !self.result.ends_with('*') {
            text += &self.statement(&valid, "valid", "SITTER_OK");
        }
        for (i, argument) in self.arguments.iter().enumerate().filter(|(_, a)| a.is_pointer()) {
            let name = &argument.name;
            let expected = if argument.may_be_null(&self.name) { "SITTER_OK" } else { "SITTER_E_NULL_POINTER" };
            text += &self.statement(&with(i, "NULL"), &format!("{name} NULL"), expected);
            if let Some(noun) = argument.handle() {
                let nothings = ["(void *)nothing".to_string(), "(void *)((char *)nothing + 1)".to_string()];
                let others = nouns.iter().filter(|n| *n != noun).map(|n| format!("(void *)h_{n}"));
                for wrong in others.chain(nothings) {
                    let what = format!("{name} is {wrong}");
                    text += &self.statement(&with(i, &wrong), &what, "SITTER_E_WRONG_HANDLE");
                }
            }
            if argument.handles().is_some() {
                text += &self.statement(&with(i, "(void *)nothing"), "a NULL in the array", "SITTER_E_NULL_POINTER");
                text += &self.statement(
                    &with(i, "(void *)array_wrong"),
                    "a wrong handle in the array",
                    "SITTER_E_WRONG_HANDLE",
                );
            }
        }
        let null = |a: &Argument, number: &str| if a.is_pointer() { "NULL".into() } else { number.to_string() };
        let nulls: Vec<String> =
            self.arguments.iter().zip(&valid).map(|(a, v)| null(a, if a.is_pointer() { "" } else { v })).collect();
        text += &self.statement(&nulls, "all NULL", "-1");
        let zeros: Vec<String> = self.arguments.iter().map(|a| null(a, "0")).collect();
        text += &self.statement(&zeros, "all zero", "-1");
        text
    }
}

const HEAD: &str = r#"#include "check.h"

#include <unistd.h>

static int32_t go_on(void *user_data, const sitter_event *event) {
    (void)user_data;
    (void)event;
    return SITTER_CONTINUE;
}

static void log_line(void *user_data, int32_t level, const char *line) {
    (void)user_data;
    (void)level;
    (void)line;
}

static void drop(void *user_data) {
    (void)user_data;
}

static sitter_error *err;
static long calls;

/* A status as expected (-1: any that there is), with the error that belongs to it. */
static void is(const char *what, sitter_status status, sitter_status expected) {
    int all_right = status == expected || (expected == -1 && strcmp(sitter_status_name(status), "unknown status") != 0);
    if (!all_right || (err != NULL && sitter_error_status(err) != status)) {
        fprintf(stderr, "%s: %s instead of %s: %s\n", what, sitter_status_name(status), sitter_status_name(expected),
                sitter_error_message(err));
        exit(1);
    }
    sitter_error_free(err);
    err = NULL;
    calls++;
}

static char chars[1 << 16];
static uint8_t bytes[1 << 16];
static uint32_t words[1 << 16];
static const uint32_t ones[1] = {1};
static int32_t numbers[1 << 16];
static uint64_t longs[1 << 16];
static float floats[1 << 16];
static double doubles[1 << 16];
static const char *const texts[1] = {"a photo of {}"};
static uint64_t nothing[8];
static size_t size;
static sitter_event event;
static char image_path[64], subject_path[64];
static sitter_dataset *training_set;
static sitter_run *drawn_run;
"#;

const MAKE: &str = r#"
static void make_everything(void) {
    sitter_status status;
    sitter_tokens *drawn = NULL;
    snprintf(image_path, sizeof image_path, "/tmp/sitter-%ld.png", (long)getpid());
    snprintf(subject_path, sizeof subject_path, "/tmp/sitter-%ld.safetensors", (long)getpid());
    h_sitter_model = open_model(NULL, "fake:steps=1");
    status = sitter_engine_new(NULL, &h_sitter_engine, NULL);
    CHECK(status == SITTER_OK && sitter_engine_options_new(&h_sitter_engine_options, NULL) == SITTER_OK);
    CHECK(sitter_model_options_new(&h_sitter_model_options, NULL) == SITTER_OK);
    CHECK(sitter_sample_options_new(h_sitter_model, &h_sitter_sample_options, NULL) == SITTER_OK);
    CHECK(sitter_run_new(&h_sitter_run, NULL) == SITTER_OK);
    CHECK(sitter_dataset_new(&h_sitter_dataset, NULL) == SITTER_OK);
    CHECK(sitter_require_abi(99, 0, &h_sitter_error) == SITTER_E_ABI_MISMATCH);
    CHECK(sitter_evaluator_options_new(&h_sitter_evaluator_options, NULL) == SITTER_OK);
    CHECK(sitter_evaluator_options_set_dino(h_sitter_evaluator_options, "fake:steps=1", NULL) == SITTER_OK);
    CHECK(sitter_evaluator_open(NULL, h_sitter_evaluator_options, NULL, &h_sitter_evaluator, NULL) == SITTER_OK);
    CHECK(sitter_evaluation_new(&h_sitter_evaluation, NULL) == SITTER_OK);
    CHECK(sitter_evaluator_score(h_sitter_evaluator, h_sitter_evaluation, NULL, &h_sitter_scores, NULL) == SITTER_OK);
    h_sitter_train_options = fox_options(h_sitter_model);
    training_set = small_dataset();
    h_sitter_image = grey_image();
    h_sitter_tokens = four_tokens();
    CHECK(sitter_run_new(&drawn_run, NULL) == SITTER_OK);
    CHECK(sitter_tokens_sample(h_sitter_model, "fox", NULL, 0, NULL, drawn_run, &drawn, 1, NULL) == SITTER_OK);
    sitter_tokens_free(drawn);
    CHECK(sitter_subject_train(h_sitter_model, training_set, h_sitter_train_options, NULL, &h_sitter_subject, NULL) == SITTER_OK);
    CHECK(sitter_subject_save(h_sitter_subject, subject_path, NULL) == SITTER_OK);
    CHECK(sitter_image_save_png(h_sitter_image, image_path, NULL) == SITTER_OK);
    array_sitter_image[0] = h_sitter_image;
    array_sitter_subject[0] = h_sitter_subject;
    array_sitter_tokens[0] = h_sitter_tokens;
    array_wrong[0] = h_sitter_run;
}
"#;

/// The program.
pub fn source() -> String {
    let functions = functions(&header());
    let mut nouns: Vec<String> =
        functions.iter().filter_map(|f| f.name.strip_suffix("_free")).map(String::from).collect();
    nouns.sort();
    let mut text = HEAD.to_string();
    // A handle of each kind, and a place for one.
    for noun in &nouns {
        let _ = writeln!(text, "static struct {noun} *h_{noun};");
    }
    for noun in nouns.iter().filter(|n| *n != "sitter_error") {
        let _ = writeln!(text, "static struct {noun} *out_{noun};");
    }
    text += "static const struct sitter_image *array_sitter_image[1];\n\
             static const struct sitter_subject *array_sitter_subject[1];\nstatic const struct sitter_tokens *array_sitter_tokens[1];\n\
             static void *array_wrong[1];\n";
    text += MAKE;
    for function in &functions {
        let _ = write!(text, "\nstatic void {}_(void) {{\n    sitter_status status = SITTER_OK;\n", function.name);
        text += &function.matrix(&nouns);
        text += "    (void)status;\n}\n";
    }
    text += "\nint main(void) {\n    make_everything();\n";
    for function in &functions {
        let _ = writeln!(text, "    {}_();", function.name);
    }
    for noun in &nouns {
        let _ = writeln!(text, "    {noun}_free(h_{noun});");
    }
    text += "    sitter_dataset_free(training_set);\n    sitter_run_free(drawn_run);\n    remove(image_path);\n    remove(subject_path);\n";
    text += "    CHECK(calls > 1000);\n    return 0;\n}\n";
    text
}

#[test]
fn the_matrix_has_every_function() {
    let symbols = std::fs::read_to_string(at("abi/symbols.txt")).unwrap();
    let mut names: Vec<String> = functions(&header()).into_iter().map(|f| f.name).collect();
    names.sort();
    assert_eq!(names, symbols.lines().collect::<Vec<_>>());
}
