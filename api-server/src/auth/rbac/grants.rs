//! A set of (action, kind) pairs, as bits: a check is one `and`.

use crate::auth::authorize::{Action, Permission};
use crate::domain::kind::Kind;

/// What may be done to which kinds, somewhere. Four bits for each of the fifteen kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grants(u64);

impl Grants {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self((1 << (Kind::ALL.len() * Action::ALL.len())) - 1);

    /// One action on one kind.
    pub const fn one(action: Action, kind: Kind) -> Self {
        Self(1 << (kind as u64 * Action::ALL.len() as u64 + action as u64))
    }

    /// What a list of permissions allows. Words that are no action and no kind allow nothing.
    pub fn of(permissions: &[Permission]) -> Self {
        permissions.iter().fold(Self::NONE, |all, permission| {
            let actions = permission.actions.iter().flat_map(|text| actions(text));
            actions.fold(all, |all, action| {
                permission.scopes.iter().fold(all, |all, scope| all.with(on_scope(*action, scope)))
            })
        })
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of the other set is in this one.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

fn actions(text: &str) -> &'static [Action] {
    if text == "*" {
        return &Action::ALL;
    }
    let found = Action::ALL.iter().position(|action| action.as_str() == text);
    found.map_or(&[], |at| &Action::ALL[at..=at])
}

fn on_scope(action: Action, scope: &str) -> Grants {
    if scope == "*" {
        return Kind::ALL.into_iter().fold(Grants::NONE, |all, kind| all.with(Grants::one(action, kind)));
    }
    Kind::parse(scope).map_or(Grants::NONE, |kind| Grants::one(action, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(actions: &[&str], scopes: &[&str]) -> Permission {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Permission { actions: owned(actions), scopes: owned(scopes) }
    }

    #[test]
    fn every_pair_has_a_bit_of_its_own() {
        let mut all = Grants::NONE;
        for kind in Kind::ALL {
            for action in Action::ALL {
                let one = Grants::one(action, kind);
                assert!(!all.has(one), "{action} {kind}");
                all = all.with(one);
            }
        }
        assert_eq!(all, Grants::ALL);
        assert_eq!(Grants::of(&[Permission::everything()]), Grants::ALL);
    }

    #[test]
    fn words_are_read_as_upstream_does_and_unknown_ones_allow_nothing() {
        let read = Grants::of(&[permission(&["read"], &["Dashboard", "folder"])]);
        assert!(read.has(Grants::one(Action::Read, Kind::Dashboard)));
        assert!(read.has(Grants::one(Action::Read, Kind::Folder)));
        assert!(!read.has(Grants::one(Action::Update, Kind::Dashboard)));
        assert!(!read.has(Grants::one(Action::Read, Kind::Variable)));
        for nothing in [permission(&["write", "Read", ""], &["*"]), permission(&["*"], &["dashboards", ""])] {
            assert!(Grants::of(&[nothing]).is_empty());
        }
        assert!(Grants::of(&[permission(&[], &["*"]), permission(&["*"], &[])]).is_empty());
    }
}
