//! Takes an SQL script apart, so that its statements can be run, and named, one by one.

/// The statements of a script, without the comments between them.
pub(super) fn split(script: &str) -> Vec<&str> {
    let bytes = script.as_bytes();
    let (mut statements, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        at = match bytes[at] {
            b'\'' | b'"' => after(script, at + 1, &script[at..=at]),
            b'-' if script[at..].starts_with("--") => after(script, at, "\n"),
            b'/' if script[at..].starts_with("/*") => after(script, at, "*/"),
            b'$' => match dollar_tag(&script[at..]) {
                Some(tag) => after(script, at + tag.len(), tag),
                None => at + 1,
            },
            b';' => {
                statements.extend(trimmed(&script[start..at]));
                start = at + 1;
                start
            }
            _ => at + 1,
        };
    }
    statements.extend(trimmed(&script[start..]));
    statements
}

/// The place after the next `end`, or the end of the script.
fn after(script: &str, from: usize, end: &str) -> usize {
    script[from..].find(end).map_or(script.len(), |found| from + found + end.len())
}

/// `$$` or `$name$` at the start of the text.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 1;
    let name = &text[1..end];
    let is_tag = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    is_tag.then(|| &text[..=end])
}

/// A statement without blanks and comments before it; `None` when nothing is left.
fn trimmed(mut text: &str) -> Option<&str> {
    loop {
        text = text.trim();
        if text.starts_with("--") {
            text = &text[after(text, 0, "\n")..];
        } else if text.starts_with("/*") {
            text = &text[after(text, 0, "*/")..];
        } else {
            return (!text.is_empty()).then_some(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_count_only_between_statements() {
        let script = "-- first; comment\nCREATE TABLE a (b text DEFAULT ';');\n/* c; */ INSERT INTO a VALUES ('it''s;', $1);\n\
                      DO $body$ BEGIN PERFORM 1; END $body$; SELECT \"x;y\" -- end;\n FROM a;\n\n-- nothing more\n";
        assert_eq!(
            split(script),
            [
                "CREATE TABLE a (b text DEFAULT ';')",
                "INSERT INTO a VALUES ('it''s;', $1)",
                "DO $body$ BEGIN PERFORM 1; END $body$",
                "SELECT \"x;y\" -- end;\n FROM a",
            ]
        );
        assert!(split(" ;; -- x").is_empty());
    }
}
