//! PURE: with what the Redis of a stack, and the sentinels beside them, sign in to each other.
//!
//! Two passwords count, one of them is used: `password`, and `other-password`, which is the same while nothing is rotated. A
//! rotation of the server's password takes these along, step by step, so that at no step a pod uses one that another pod
//! does not know yet, or no more.

use super::super::rotation::{State, Step};
use super::super::validate::Invalid;
use super::Data;

/// Who signs in.
pub(in super::super) const PEER: &str = "peer";
/// Keys of the Secret.
pub(super) const PASSWORD: &str = "password";
pub(super) const OTHER: &str = "other-password";

/// The values of a new Secret.
pub(super) fn fresh(password: String) -> Data {
    super::data([(PASSWORD, password.clone()), (OTHER, password)])
}

/// Passwords that can stand in the lines of words that Redis and the sentinels read.
pub(super) fn plain(name: &str, data: Data) -> Result<Data, Invalid> {
    let odd = [PASSWORD, OTHER].into_iter().find(|key| !data[*key].iter().all(u8::is_ascii_alphanumeric));
    match odd {
        Some(key) => Err(super::damaged(name, key, "has more than letters and digits")),
        None => Ok(data),
    }
}

/// Takes the passwords to the step to which the server's went; `before` is where they are.
pub(super) fn follow(before: Option<&State>, now: &State, data: &mut Data, fresh: Vec<u8>) {
    if before.is_some_and(|before| before.step == now.step && before.value == now.value) {
        return;
    }
    let text = |data: &Data, key: &str| data.get(key).cloned().unwrap_or_default();
    let (used, other) = (text(data, PASSWORD), text(data, OTHER));
    let (used, other) = match now.step {
        Step::Accept => (used, fresh),
        Step::Issue => (other, used),
        Step::Done => (used.clone(), used),
        Step::Apply | Step::Expire | Step::Retire => (used, other),
    };
    data.insert(PASSWORD.to_owned(), used);
    data.insert(OTHER.to_owned(), other);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(value: &str, step: Step) -> State {
        State { value: value.to_owned(), step, since: 0, api: 0, own: 0 }
    }

    #[test]
    fn at_every_step_each_knows_what_the_others_use() {
        let mut data = fresh("p0".to_owned());
        let mut before: Option<State> = None;
        for round in ["1", "2"] {
            for step in [Step::Accept, Step::Issue, Step::Done] {
                let old = data.clone();
                let now = state(round, step);
                follow(before.as_ref(), &now, &mut data, format!("p{round}").into_bytes());
                let taken = data.clone();
                follow(Some(&now), &now, &mut data, b"another".to_vec());
                assert_eq!(data, taken, "a step is taken once");
                for (one, another) in [(&old, &data), (&data, &old)] {
                    assert!(another.values().any(|known| *known == one[PASSWORD]), "{round} {step:?}");
                }
                before = Some(now);
            }
            assert_eq!((&data[PASSWORD], &data[OTHER]), (&format!("p{round}").into_bytes(), &data[PASSWORD]));
        }
    }
}
