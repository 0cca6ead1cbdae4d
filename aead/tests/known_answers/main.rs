//! Published vectors, on every backend and at every position of a batch.

mod positions;
mod rfc8439;
mod wycheproof;

use aead::Aead;

fn backends() -> impl Iterator<Item = Aead> {
    Aead::names().map(|name| Aead::by_name(name).expect("listed backends pass their self-test"))
}

#[test]
fn detect_picks_a_listed_backend_and_unknown_names_are_explained() {
    assert!(Aead::names().any(|name| name == Aead::detect().name()));
    let error = Aead::by_name("rot13").expect_err("no such backend").to_string();
    assert!(error.contains("\"rot13\"") && error.contains("portable"), "{error}");
}
