#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sitter_fuzz::parsers::index(data));
