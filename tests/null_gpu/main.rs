//! Nothing yet.
#[test]
fn opens() {
    let d = sitter::device::devices();
    println!("{d:?}");
    assert_eq!(d.len(), 2);
    sitter::device::open_device("cuda").unwrap();
}
