//! What a stack costs: the arithmetic of seed section 8 over the stack's own numbers, with prices from a table.

use serde::{Deserialize, Serialize};

use super::footprint::{Footprint, PodGroup};
use super::quantity::DataSize;

/// Hours of a month; the seed counts 30 days.
pub const HOURS: f64 = 720.0;
/// Bytes of a gigabyte, as clouds bill it.
const GB: f64 = 1e9;

/// Prices, in one currency. The defaults are those of seed section 8.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PriceTable {
    /// Word after every amount.
    pub currency: String,
    /// One CPU core for an hour. The seed's price is that of a cloud's core with the memory that comes with it.
    pub cpu_core_hour: f64,
    /// One GiB of memory for an hour, where memory is billed beside the cores.
    pub memory_gib_hour: f64,
    /// One GB of a volume for a month.
    pub storage_gb_month: f64,
    /// One GB of backups for a month.
    pub backup_gb_month: f64,
    /// One GB that leaves the cluster.
    pub egress_gb: f64,
    /// Discount for pods on spot nodes, percent.
    pub spot_discount_percent: f64,
}

impl Default for PriceTable {
    fn default() -> Self {
        Self {
            currency: "USD".to_owned(),
            cpu_core_hour: 0.04,
            memory_gib_hour: 0.0,
            storage_gb_month: 0.10,
            backup_gb_month: 0.05,
            egress_gb: 0.09,
            spot_discount_percent: 50.0,
        }
    }
}

/// A price table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// Not YAML, or not the known fields.
    #[error("the price table cannot be read: {0}; its fields are {FIELDS}")]
    Yaml(String),
    /// A price that is none.
    #[error("{0} of the price table must be a number from 0{1}")]
    Range(&'static str, &'static str),
}

const FIELDS: &str =
    "currency, cpuCoreHour, memoryGibHour, storageGbMonth, backupGbMonth, egressGb, spotDiscountPercent";

impl PriceTable {
    /// From YAML; a field that is absent keeps its default.
    ///
    /// # Errors
    /// An unknown field, or a price below zero.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let table: Self = serde_saphyr::from_str(text).map_err(|error| PriceError::Yaml(error.to_string()))?;
        let prices = [
            ("cpuCoreHour", table.cpu_core_hour),
            ("memoryGibHour", table.memory_gib_hour),
            ("storageGbMonth", table.storage_gb_month),
            ("backupGbMonth", table.backup_gb_month),
            ("egressGb", table.egress_gb),
        ];
        if let Some((name, _)) = prices.iter().find(|(_, price)| !price.is_finite() || *price < 0.0) {
            return Err(PriceError::Range(name, ""));
        }
        if !(0.0..=100.0).contains(&table.spot_discount_percent) {
            return Err(PriceError::Range("spotDiscountPercent", " to 100"));
        }
        Ok(table)
    }
}

/// Costs of a month.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// The table's currency.
    pub currency: String,
    /// What costs.
    pub lines: Vec<CostLine>,
    /// Sum with the fewest pods all month.
    pub least: f64,
    /// Sum with the most pods all month.
    pub most: f64,
    /// `least` by users.
    pub least_per_user: f64,
    /// `most` by users.
    pub most_per_user: f64,
    /// `least` with stateless pods on spot nodes.
    pub least_with_spot: f64,
    /// `most` with stateless pods on spot nodes.
    pub most_with_spot: f64,
}

/// One line of the bill.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CostLine {
    /// What.
    pub what: String,
    /// Amounts and prices.
    pub formula: String,
    /// With the fewest pods all month.
    pub least: f64,
    /// With the most pods all month.
    pub most: f64,
    /// Whether spot nodes make it cheaper.
    pub spot: bool,
}

/// The bill. What is reserved is paid, so pods count with their requests; the truth lies between fewest and most pods.
pub fn cost(footprint: &Footprint, egress: DataSize, users: i64, prices: &PriceTable) -> Cost {
    let mut lines: Vec<CostLine> =
        footprint.pods.iter().filter(|group| !group.task).map(|group| pods(group, prices)).collect();
    for volume in &footprint.volumes {
        let price = if volume.backup { prices.backup_gb_month } else { prices.storage_gb_month };
        // Sizes are GiB and bills are GB: the seed takes one for the other, and so do most clouds.
        let size = float(volume.size.0) / float(super::quantity::GIB);
        let month = float(volume.count) * size * price;
        lines.push(CostLine {
            what: format!("volume {}", volume.name),
            formula: format!("{} x {size:.0} GB x {price}", volume.count),
            least: month,
            most: month,
            spot: false,
        });
    }
    let gigabytes = float(egress.0) / GB;
    let month = gigabytes * prices.egress_gb;
    lines.push(CostLine {
        what: "egress through the router".to_owned(),
        formula: format!("{gigabytes:.0} GB x {}", prices.egress_gb),
        least: month,
        most: month,
        spot: false,
    });

    let spot = 1.0 - prices.spot_discount_percent / 100.0;
    let sum = |of: &dyn Fn(&CostLine) -> f64, with_spot: bool| -> f64 {
        lines.iter().map(|line| of(line) * if with_spot && line.spot { spot } else { 1.0 }).sum()
    };
    let (least, most) = (sum(&|line| line.least, false), sum(&|line| line.most, false));
    let (least_with_spot, most_with_spot) = (sum(&|line| line.least, true), sum(&|line| line.most, true));
    let users = float(users.max(1));
    Cost {
        currency: prices.currency.clone(),
        least,
        most,
        least_per_user: least / users,
        most_per_user: most / users,
        least_with_spot,
        most_with_spot,
        lines,
    }
}

fn pods(group: &PodGroup, prices: &PriceTable) -> CostLine {
    let requests = group.requests();
    let (cores, gib) = (float(requests.cpu.0) / 1000.0, float(requests.memory.0) / float(super::quantity::GIB));
    let pod = (cores * prices.cpu_core_hour + gib * prices.memory_gib_hour) * HOURS;
    let count =
        if group.fewest == group.most { group.most.to_string() } else { format!("{}-{}", group.fewest, group.most) };
    let memory = if prices.memory_gib_hour > 0.0 {
        format!(" + {gib:.2} GiB x {}", prices.memory_gib_hour)
    } else {
        String::new()
    };
    CostLine {
        what: group.workload.clone(),
        formula: format!("{count} x ({cores} cores x {}{memory}) x {HOURS} h", prices.cpu_core_hour),
        least: float(group.fewest) * pod,
        most: float(group.most) * pod,
        spot: group.stateless,
    }
}

impl Cost {
    /// The bill as a table.
    pub fn table(&self) -> String {
        let mut rows =
            vec![["per month".to_owned(), "fewest pods".to_owned(), "most pods".to_owned(), "how".to_owned()]];
        for line in &self.lines {
            rows.push([line.what.clone(), money(line.least), money(line.most), line.formula.clone()]);
        }
        let unit = &self.currency;
        rows.push([format!("total ({unit})"), money(self.least), money(self.most), String::new()]);
        rows.push(["per user".to_owned(), money(self.least_per_user), money(self.most_per_user), String::new()]);
        let note = "stateless pods on spot nodes".to_owned();
        rows.push(["total with spot".to_owned(), money(self.least_with_spot), money(self.most_with_spot), note]);
        crate::table::text(&rows)
    }
}

/// An amount of money with two decimals.
pub fn money(amount: f64) -> String {
    format!("{amount:.2}")
}

#[allow(clippy::cast_precision_loss, reason = "amounts stay far below 2^53, and this is about money, not about bytes")]
fn float(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizing::footprint::{Amount, ContainerLoad, Volume};
    use crate::sizing::quantity::GIB;
    use crate::sizing::{Bytes, Cpu};

    /// The seed's own stack, as its section 8 counts it: limits instead of requests.
    pub(crate) fn seed() -> Footprint {
        let group = |name: &str, pods: i64, millis: i64, stateless: bool| PodGroup {
            workload: name.to_owned(),
            fewest: pods,
            most: pods,
            surge: 0,
            stateless,
            task: false,
            containers: vec![ContainerLoad {
                requests: Amount { cpu: Cpu(millis), memory: Bytes(0) },
                ..ContainerLoad::default()
            }],
        };
        Footprint {
            pods: vec![
                group("api", 10, 1000, true),
                group("redis", 1, 1000, false),
                group("pgbouncer", 2, 500, true),
                group("postgres", 3, 2000, false),
            ],
            volumes: vec![
                Volume { name: "data".to_owned(), count: 3, size: Bytes(100 * GIB), class: None, backup: false },
                Volume { name: "backup".to_owned(), count: 1, size: Bytes(100 * GIB), class: None, backup: true },
            ],
        }
    }

    fn month(cost: &Cost, what: &str) -> String {
        money(cost.lines.iter().find(|line| line.what == what).unwrap().most)
    }

    #[test]
    fn the_seeds_bill_does_not_add_up() {
        let cost = cost(&seed(), DataSize(1_000_000_000_000), 500, &PriceTable::default());
        // The seed writes 28.80 a day for the API: three times of what its own factors give.
        assert_eq!(month(&cost, "api"), money(9.60 * 30.0));
        assert_eq!(month(&cost, "redis"), money(0.96 * 30.0));
        assert_eq!(month(&cost, "pgbouncer"), money(0.96 * 30.0));
        assert_eq!(month(&cost, "postgres"), money(5.76 * 30.0));
        assert_eq!(month(&cost, "volume data"), "30.00");
        assert_eq!(month(&cost, "volume backup"), "5.00");
        assert_eq!(month(&cost, "egress through the router"), "90.00");
        // 1,235 in the seed; with its own lines it would be 1,219.40, with its own factors it is 643.40.
        assert_eq!(money((28.80 + 0.96 + 0.96 + 5.76) * 30.0 + 35.0 + 90.0), "1219.40");
        assert_eq!(money(cost.most), "643.40");
        assert_eq!(money(cost.most_per_user), "1.29");
        assert_eq!(money(cost.most_with_spot), "485.00", "half of the API's 288 and the pooler's 28.80");
    }

    #[test]
    fn a_table_is_read_strictly() {
        let table = PriceTable::parse("cpuCoreHour: 0.05\nmemoryGibHour: 0.005\ncurrency: EUR\n").unwrap();
        assert_eq!((table.cpu_core_hour, table.storage_gb_month), (0.05, 0.10));
        let with_memory = cost(&seed(), DataSize(0), 500, &table);
        assert!(with_memory.table().contains("total (EUR)"), "{}", with_memory.table());
        for (text, because) in
            [("cpu: 1", "cpuCoreHour"), ("egressGb: -1", "egressGb"), ("spotDiscountPercent: 101", "to 100")]
        {
            let error = PriceTable::parse(text).unwrap_err().to_string();
            assert!(error.contains(because), "{text}: {error}");
        }
    }
}
