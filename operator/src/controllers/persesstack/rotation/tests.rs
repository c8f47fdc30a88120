use std::collections::BTreeSet;

use super::*;

/// One Secret, and a cluster in which every step ends as soon as it may.
struct World {
    what: What,
    pooler: bool,
    data: Data,
    state: Option<State>,
    fresh: u8,
}

impl World {
    fn new(what: What) -> Self {
        let pairs: &[(&str, &str)] = match what {
            What::Admin => &[("username", "admin"), ("password", "p0")],
            What::Database => &[("dbname", "perses"), ("user", "perses"), ("password", "p0")],
            What::Keys => &[(ENCRYPTION_KEY, "p0")],
            What::Redis => &[("username", "perses"), ("password", "p0")],
        };
        let mut data: Data = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        if what == What::Redis {
            data.insert("users.acl".to_owned(), redis_acl(b"perses", &[b"p0"]));
        }
        Self { what, pooler: true, data, state: None, fresh: 0 }
    }

    fn expected(&self) -> Seen {
        Seen::at(&self.state.clone().map(|state| (self.what, state)).into_iter().collect(), self.pooler)
    }

    /// What the cluster shows when everybody has done their part of the step.
    fn ready(&self) -> Evidence {
        let Seen { api, redis, pooler } = self.expected();
        let job = self.state.as_ref().and_then(|state| state.job(self.what));
        let done = JobState { complete: true, ..JobState::default() };
        let now = Timestamp::from_second(self.state.as_ref().map_or(0, |state| state.since) + 100).unwrap();
        Evidence {
            api: Some(api),
            redis: Some(redis),
            pooler: Some(pooler),
            jobs: job.map(|job| (job, done)).into_iter().collect(),
            now,
        }
    }

    /// One look; the data before it.
    fn look(&mut self, request: Option<&str>, evidence: &Evidence, awake: bool) -> Data {
        self.fresh += 1;
        let view = View { evidence, expected: &self.expected(), pooler: self.pooler, tokens_live: 100, awake };
        let before = self.data.clone();
        let fresh = format!("fresh{}", self.fresh).into_bytes();
        self.state = advance(self.what, self.state.take(), request, &mut self.data, fresh, &view);
        before
    }

    fn step(&self) -> Option<Step> {
        self.state.as_ref().map(|state| state.step)
    }

    fn text(&self, key: &str) -> String {
        text(&self.data, key)
    }

    /// Carries a whole request out, and calls `check` with the data before and after each step.
    fn carry_out(&mut self, request: &str, check: impl Fn(&Data, &Data)) -> Vec<Step> {
        let mut steps = Vec::new();
        while self.state.as_ref().is_none_or(|state| state.step != Step::Done || state.value != request) {
            let evidence = self.ready();
            let before = self.look(Some(request), &evidence, true);
            steps.extend(self.step());
            check(&before, &self.data);
        }
        steps
    }
}

fn text(data: &Data, key: &str) -> String {
    data.get(key).map(|value| String::from_utf8(value.clone()).unwrap()).unwrap_or_default()
}

/// Values that count at this state of a Secret.
fn accepted(what: What, data: &Data) -> BTreeSet<String> {
    let keys: &[&str] = match what {
        What::Admin => &["password", NEXT_PASSWORD, PREVIOUS_PASSWORD],
        What::Keys => &[ENCRYPTION_KEY, NEXT_KEY, PREVIOUS_KEY],
        What::Redis | What::Database => &[],
    };
    let acl = text(data, "users.acl");
    let passwords = acl.split_whitespace().filter_map(|word| word.strip_prefix('>')).map(str::to_owned);
    keys.iter().map(|key| text(data, key)).filter(|value| !value.is_empty()).chain(passwords).collect()
}

#[test]
fn whoever_is_a_step_behind_or_ahead_is_understood() {
    for (what, used) in [(What::Admin, "password"), (What::Keys, ENCRYPTION_KEY), (What::Redis, "password")] {
        let mut world = World::new(what);
        for round in ["1", "2"] {
            let first = world.text(used);
            let steps = world.carry_out(round, |before, after| {
                for value in [text(before, used), text(after, used)] {
                    for side in [before, after] {
                        assert!(accepted(what, side).contains(&value), "{what:?}: {value} in {side:?}");
                    }
                }
            });
            assert_eq!(steps, what.steps(), "{what:?}");
            let last = world.text(used);
            assert!(first != last && accepted(what, &world.data) == [last].into(), "{what:?}: only the new one counts");
        }
    }
}

#[test]
fn the_login_roles_take_turns_and_no_password_comes_back() {
    let mut world = World::new(What::Database);
    let mut seen = BTreeSet::from([world.text("password")]);
    let started = seed(&world.data);
    for (round, user) in [("1", "perses_b"), ("2", "perses"), ("3", "perses_b")] {
        let held: BTreeSet<_> = world.data.values().cloned().collect();
        let steps = world.carry_out(round, |before, after| {
            let login = |data: &Data| (text(data, "user"), text(data, "password"));
            let other = |data: &Data| (text(data, OTHER_USER), text(data, OTHER_PASSWORD));
            // What is signed in with next was made by the Job of the step before.
            assert!(login(after) == login(before) || login(after) == other(before));
            let now = text(after, KNOWN_PASSWORD);
            assert!(login(after) == login(before) || now == login(before).1, "the one to be locked can still sign in");
        });
        assert_eq!(steps, [Step::Apply, Step::Issue, Step::Retire, Step::Done]);
        assert_eq!(world.text("user"), user);
        assert!(!held.contains(&world.data["password"]), "what the Secret held before is not what counts now");
        assert!(seen.insert(world.text("password")) && seen.insert(world.text(OTHER_PASSWORD)));
        assert_eq!(seed(&world.data), started, "the database need not be started anew");
    }
    world.data.insert("password".to_owned(), b"by hand".to_vec());
    assert_ne!(seed(&world.data), started, "an edit takes effect by a start");
}

#[test]
fn no_step_ends_before_the_cluster_shows_it() {
    for what in What::ALL {
        for pooler in [true, false] {
            let mut world = World { pooler, ..World::new(what) };
            world.look(Some("1"), &Evidence::default(), true);
            while world.step() != Some(Step::Done) {
                let (state, ready) = (world.state.clone(), world.ready());
                let failed = JobState { failed: Some("boom".to_owned()), ..JobState::default() };
                let early = Timestamp::from_second(state.as_ref().unwrap().since + 99).unwrap();
                let old = |seen: &Option<String>| seen.as_ref().map(|_| "older".to_owned());
                let jobs = ready.jobs.keys().map(|job| (job.clone(), failed.clone())).collect();
                let not_yet = [
                    Evidence { now: early, ..Evidence::default() },
                    Evidence {
                        now: early,
                        jobs,
                        api: old(&ready.api),
                        redis: old(&ready.redis),
                        pooler: old(&ready.pooler),
                    },
                ];
                for evidence in not_yet {
                    let before = world.look(Some("1"), &evidence, true);
                    assert_eq!((&world.state, &world.data), (&state, &before), "{what:?} {evidence:?}");
                }
                let before = world.look(Some("2"), &ready, false);
                assert_eq!((&world.state, &world.data), (&state, &before), "{what:?} asleep");
                // Another wish meanwhile waits for the end of this one; taking the wish back does not stop it half way.
                world.look(Some("2"), &ready, true);
                assert_eq!(world.state.as_ref().unwrap().value, "1");
                assert_ne!(world.step(), state.map(|state| state.step), "{what:?}");
            }
            let evidence = world.ready();
            world.look(None, &evidence, true);
            assert_eq!(world.step(), Some(Step::Done));
            world.look(Some("1"), &evidence, true);
            assert_eq!(world.step(), Some(Step::Done), "what was asked for is done once");
            world.look(Some("2"), &evidence, true);
            assert_eq!(world.step(), what.steps().first().copied());
        }
    }
}

#[test]
fn pods_start_anew_when_they_must_have_seen_a_value_and_not_else() {
    let counts = |what| {
        let mut world = World::new(what);
        world.carry_out("1", |_, _| {});
        let state = world.state.unwrap();
        (state.api, state.own)
    };
    assert_eq!(counts(What::Admin), (1, 0));
    assert_eq!(counts(What::Keys), (2, 0));
    assert_eq!(counts(What::Redis), (1, 2), "the last start of Redis ends the old password");
    assert_eq!(counts(What::Database), (0, 1));
    let states =
        What::ALL.map(|what| (what, State { api: 1, own: 2, ..State::begun("v", None, Timestamp::UNIX_EPOCH) }));
    let seen = Seen::at(&states.into(), true);
    let words = (seen.api.as_str(), seen.redis.as_str(), seen.pooler.as_str());
    assert_eq!(words, ("admin=1,keys=1,redis=1", "redis=2", "database=2"));
    let states =
        What::ALL.map(|what| (what, State { api: 1, own: 2, ..State::begun("v", None, Timestamp::UNIX_EPOCH) }));
    let direct = Seen::at(&states.into(), false);
    assert_eq!((direct.api.as_str(), direct.pooler.as_str()), ("admin=1,database=2,keys=1,redis=1", ""));
    assert_eq!(Seen::at(&States::new(), true), Seen::default(), "nothing changes for a stack that never asked");
}

#[test]
fn the_state_is_what_the_annotation_says() {
    let state = State { step: Step::Expire, api: 3, ..State::begun("2026 \"x\"", None, Timestamp::UNIX_EPOCH) };
    let secret = SecretData { rotation: Some(state.text()), ..SecretData::default() };
    assert_eq!(State::of(&secret), Some(state));
    for none in [None, Some("{".to_owned())] {
        assert_eq!(State::of(&SecretData { rotation: none, ..SecretData::default() }), None);
    }
    let made = State::made(Some("v"), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((made.step, made.value.as_str()), (Step::Done, "v"), "what is made now is new");
    assert_eq!(State::made(None, Timestamp::UNIX_EPOCH), None);
}

#[test]
fn it_is_looked_again_in_time() {
    let state = |step| State { step, since: 100, ..State::begun("v", None, Timestamp::UNIX_EPOCH) };
    let at = |second| Timestamp::from_second(second).unwrap();
    let wait = |steps: &[Step], now| {
        let states = What::ALL.into_iter().zip(steps).map(|(what, step)| (what, state(*step))).collect();
        look_again(&states, 60, at(now))
    };
    assert_eq!(wait(&[Step::Done], 100), None);
    assert_eq!(wait(&[Step::Done, Step::Expire], 110), Some(50));
    assert_eq!(wait(&[Step::Expire, Step::Issue], 110), Some(5));
    assert_eq!(wait(&[Step::Expire], 500), Some(1));
}
