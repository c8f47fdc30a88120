//! How well a dashboard's names fit what somebody looks for. Pure.

use serde::Serialize;

/// A part of a text that fits, in characters; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Interval {
    /// The first character.
    pub from: usize,
    /// The last character.
    pub to: usize,
}

/// A fit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Match {
    /// The text that the intervals are of.
    pub original: String,
    /// What of it fits, without overlaps, in order.
    pub intervals: Vec<Interval>,
    /// Above 0 and at most 1; better is greater.
    pub score: f64,
}

/// Takes a query apart: lower case, separated by blanks.
pub fn words(query: &str) -> Vec<String> {
    query.split_whitespace().map(str::to_lowercase).collect()
}

/// The better of both names; words may also be spread over the two. `None` when a word is in neither.
pub fn best(words: &[String], name: &str, display_name: Option<&str>) -> Option<Match> {
    let title = display_name.filter(|title| !title.is_empty()).unwrap_or(name);
    let whole = fit(words, title).into_iter().chain(fit(words, name)).max_by(|a, b| a.score.total_cmp(&b.score));
    if whole.is_some() {
        return whole;
    }
    let (in_title, elsewhere): (Vec<String>, Vec<String>) =
        words.iter().cloned().partition(|word| title.to_lowercase().contains(word));
    fit(&elsewhere, name)?;
    let partly = fit(&in_title, title)?;
    Some(Match { score: partly.score / 2.0, ..partly })
}

/// Every word in one text: where, and how well. A word counts most when it is the text, less at its start, at the start of
/// a word in it, and least inside one; the part of the text that is covered decides between equals.
fn fit(words: &[String], text: &str) -> Option<Match> {
    if words.is_empty() {
        return None;
    }
    // Character by character: lower case may have another length than the text.
    let letters: Vec<(usize, char)> =
        text.chars().enumerate().flat_map(|(at, letter)| letter.to_lowercase().map(move |lower| (at, lower))).collect();
    let mut intervals = Vec::with_capacity(words.len());
    let mut score = 0.0;
    for word in words {
        let (weight, interval) = place(&word.chars().collect::<Vec<_>>(), &letters)?;
        score += weight;
        intervals.push(interval);
    }
    let intervals = merged(intervals);
    let covered: usize = intervals.iter().map(|interval| interval.to - interval.from + 1).sum();
    let (covered, length) = (as_number(covered), as_number(text.chars().count().max(1)));
    let score = 0.8 * score / as_number(words.len()) + 0.2 * covered / length;
    Some(Match { original: text.to_owned(), intervals, score })
}

fn place(word: &[char], letters: &[(usize, char)]) -> Option<(f64, Interval)> {
    let starts = (0..letters.len().saturating_sub(word.len().saturating_sub(1)))
        .filter(|start| letters[*start..].iter().zip(word).all(|((_, letter), wanted)| letter == wanted));
    let weighed = starts.map(|start| {
        let end = start + word.len() - 1;
        let after_gap = start == 0 || !letters[start - 1].1.is_alphanumeric();
        let weight = match (start, after_gap) {
            (0, _) if end + 1 == letters.len() => 1.0,
            (0, _) => 0.8,
            (_, true) => 0.6,
            _ => 0.3,
        };
        (weight, Interval { from: letters[start].0, to: letters[end].0 })
    });
    // The first of the best.
    weighed.reduce(|best, next| if next.0 > best.0 { next } else { best })
}

fn merged(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_by_key(|interval| interval.from);
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    for next in intervals {
        match merged.last_mut() {
            Some(last) if next.from <= last.to + 1 => last.to = last.to.max(next.to),
            _ => merged.push(next),
        }
    }
    merged
}

/// Lengths of names are small.
fn as_number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn score(query: &str, name: &str, title: Option<&str>) -> f64 {
        best(&words(query), name, title).map_or(0.0, |found| found.score)
    }

    #[test]
    fn better_fits_score_higher() {
        let order = [
            score("cpu", "x", Some("CPU")),
            score("cpu", "x", Some("CPU usage")),
            score("cpu", "x", Some("Node CPU")),
            score("cpu", "x", Some("Node CPU of everything there is")),
            score("cpu", "x", Some("Mycpus")),
            score("cpu node", "node-1", Some("All about cpus and more")),
        ];
        assert!(order.is_sorted_by(|a, b| a > b) && order.iter().all(|score| *score > 0.0), "{order:?}");
        assert_eq!(best(&words("cpu disk"), "cpu", Some("CPU")), None);
        assert_eq!(best(&[], "cpu", None), None);
    }

    #[test]
    fn intervals_are_of_the_text_as_it_stands() {
        let found = best(&words("ÄRGER  cpu"), "d", Some("Großer Ärger, CPU")).unwrap();
        assert_eq!(found.original, "Großer Ärger, CPU");
        assert_eq!(found.intervals, [Interval { from: 7, to: 11 }, Interval { from: 14, to: 16 }]);
        assert_eq!(best(&words("node cpu"), "node-cpu", Some("Machines")).unwrap().original, "node-cpu");
        assert_eq!(best(&words("no od de"), "node", None).unwrap().intervals, [Interval { from: 0, to: 3 }]);
    }

    proptest! {
        #[test]
        fn nothing_that_is_typed_breaks_it(query in ".{0,12}", name in "[a-z.-]{1,12}", title in ".{0,20}") {
            if let Some(found) = best(&words(&query), &name, Some(&title)) {
                let length = found.original.chars().count();
                prop_assert!(found.score > 0.0 && found.score <= 1.0);
                prop_assert!(found.intervals.iter().all(|i| i.from <= i.to && i.to < length));
            }
        }
    }
}
