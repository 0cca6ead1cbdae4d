//! Generated parts of a document that people write otherwise.

use anyhow::{Context as _, Result, ensure};

/// Replaces what is between `<!-- NAME begin -->` and `<!-- NAME end -->` in a document; all else stays as it is.
///
/// # Errors
/// The markers are not there exactly once each and in this order.
pub fn replace_marked(document: &str, name: &str, generated: &str) -> Result<String> {
    let [begin, end] = ["begin", "end"].map(|what| format!("<!-- {name} {what} -->"));
    for marker in [&begin, &end] {
        let count = document.matches(marker.as_str()).count();
        ensure!(count == 1, "`{marker}` is there {count} times, not once");
    }
    let (before, rest) = document.split_once(&begin).context("the marker was counted")?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("`{end}` stands before `{begin}`"))?;
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", generated.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# Title\n\n<!-- bench begin -->\nold\n<!-- bench end -->\n\nby hand\n";

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let expected = "# Title\n\n<!-- bench begin -->\n\nnew\n\n<!-- bench end -->\n\nby hand\n";
        let once = replace_marked(DOCUMENT, "bench", "new\n").unwrap();
        assert_eq!(once, expected);
        assert_eq!(replace_marked(&once, "bench", "new").unwrap(), expected);
    }

    #[test]
    fn a_document_without_its_markers_is_left_alone() {
        let error = |document: &str| replace_marked(document, "bench", "new").unwrap_err().to_string();
        assert!(error("# Title\n").contains("`<!-- bench begin -->` is there 0 times"));
        assert!(error(&DOCUMENT.repeat(2)).contains("2 times"));
        assert!(error("<!-- bench end --> <!-- bench begin -->").contains("stands before"));
    }
}
