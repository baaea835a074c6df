#![no_main]

// libFuzzer's hook ends the process at every panic. Those of the tokenizers crate are caught and become errors; one that
// nobody catches still ends the run.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| sitter_fuzz::parsers::tokenizer(data)
);
