//! The rule for `metadata.name` (Perses v0.54, and the later ban on `..` and outer dots, CVE-2026-63445).

/// Longest name, in characters.
pub const MAX_LENGTH: usize = 75;

/// Why a name is refused; the text is what upstream answers after `bad request: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty name.
    #[error("name cannot be empty")]
    Empty,
    /// More than [`MAX_LENGTH`] characters.
    #[error("cannot contain more than {MAX_LENGTH} characters")]
    TooLong,
    /// A character outside `[a-zA-Z0-9_.-]`.
    #[error("\"{0}\" is not a correct name. It should match the regexp: ^[a-zA-Z0-9_.-]+$")]
    BadCharacter(String),
    /// `..` inside, or a dot at either end: such a name could leave its folder.
    #[error("\"{0}\" is not a correct name. It must not start or end with '.', nor contain '..'")]
    Dots(String),
}

/// Checks a name of a resource.
pub fn validate(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().count() > MAX_LENGTH {
        return Err(NameError::TooLong);
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return Err(NameError::BadCharacter(name.to_owned()));
    }
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        return Err(NameError::Dots(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_rule() {
        for good in ["a", "A.b-c_9", &"x".repeat(75)] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        assert_eq!(validate(""), Err(NameError::Empty));
        assert_eq!(validate(&"x".repeat(76)), Err(NameError::TooLong));
        for bad in ["a b", "a/b", "ä", "a\0", "a%2f"] {
            assert!(matches!(validate(bad), Err(NameError::BadCharacter(_))), "{bad}");
        }
        for bad in ["..", ".", ".a", "a.", "a..b"] {
            assert!(matches!(validate(bad), Err(NameError::Dots(_))), "{bad}");
        }
    }
}
