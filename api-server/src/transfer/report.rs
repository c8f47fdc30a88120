//! What an import did, for people.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::kind::Kind;

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Created,
    Updated,
    Unchanged,
    Skipped,
    Failed,
}

/// The numbers of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// Was not there.
    pub created: usize,
    /// Was there and differed.
    pub updated: usize,
    /// Was there and is the same.
    pub unchanged: usize,
    /// Was there, differs and was left alone.
    pub skipped: usize,
    /// Could not be brought in.
    pub failed: usize,
}

/// What an import did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Nothing was written.
    pub dry_run: bool,
    /// Numbers by kind.
    pub rows: BTreeMap<Kind, Row>,
    /// Documents that differ and were left alone.
    pub skipped: Vec<String>,
    /// What could not be read or written, with the reason.
    pub failed: Vec<String>,
    /// Secrets that the source does not tell, by document.
    pub reenter: Vec<String>,
}

impl Report {
    pub(super) fn count(&mut self, kind: Kind, outcome: Outcome) {
        let row = self.rows.entry(kind).or_default();
        *match outcome {
            Outcome::Created => &mut row.created,
            Outcome::Updated => &mut row.updated,
            Outcome::Unchanged => &mut row.unchanged,
            Outcome::Skipped => &mut row.skipped,
            Outcome::Failed => &mut row.failed,
        } += 1;
    }

    /// All kinds together.
    pub fn total(&self) -> Row {
        self.rows.values().fold(Row::default(), |sum, row| Row {
            created: sum.created + row.created,
            updated: sum.updated + row.updated,
            unchanged: sum.unchanged + row.unchanged,
            skipped: sum.skipped + row.skipped,
            failed: sum.failed + row.failed,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dry_run {
            writeln!(f, "dry run: nothing was written")?;
        }
        writeln!(
            f,
            "{:<20}{:>9}{:>9}{:>11}{:>9}{:>8}",
            "kind", "created", "updated", "unchanged", "skipped", "failed"
        )?;
        let rows = self.rows.iter().map(|(kind, row)| (kind.as_str(), *row)).chain([("all", self.total())]);
        for (kind, row) in rows {
            let Row { created, updated, unchanged, skipped, failed } = row;
            writeln!(f, "{kind:<20}{created:>9}{updated:>9}{unchanged:>11}{skipped:>9}{failed:>8}")?;
        }
        for (title, lines) in [
            ("skipped, as they are there and differ (--overwrite replaces them)", &self.skipped),
            ("failed", &self.failed),
            ("secrets to enter again, as the source does not tell them", &self.reenter),
        ] {
            if !lines.is_empty() {
                writeln!(f, "\n{title}:")?;
                lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
            }
        }
        Ok(())
    }
}
