//! Which objects a pod mounts. PURE.

use serde_json::Value;

use super::kind::Kind;

/// Kind and name of everything that the volumes of a pod's spec refer to.
pub fn mounts(pod: &Value) -> Vec<(Kind, &str)> {
    let volumes = items(&pod["volumes"]);
    let direct = volumes.iter().flat_map(|volume| {
        [
            (Kind::Secret, &volume["secret"]["secretName"]),
            (Kind::ConfigMap, &volume["configMap"]["name"]),
            (Kind::PersistentVolumeClaim, &volume["persistentVolumeClaim"]["claimName"]),
        ]
    });
    let sources = volumes.iter().flat_map(|volume| items(&volume["projected"]["sources"]));
    let projected = sources.flat_map(|source| {
        [(Kind::Secret, &source["secret"]["name"]), (Kind::ConfigMap, &source["configMap"]["name"])]
    });
    direct.chain(projected).filter_map(|(kind, name)| Some((kind, name.as_str()?))).collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_of_every_form() {
        let pod = json!({"volumes": [
            {"name": "a", "secret": {"secretName": "one"}}, {"name": "b", "emptyDir": {}},
            {"name": "c", "projected": {"sources": [{"secret": {"name": "two"}}, {"configMap": {"name": "x"}}]}},
            {"name": "d", "configMap": {"name": "y"}}, {"name": "e", "persistentVolumeClaim": {"claimName": "z"}}]});
        let expected = [
            (Kind::Secret, "one"),
            (Kind::ConfigMap, "y"),
            (Kind::PersistentVolumeClaim, "z"),
            (Kind::Secret, "two"),
            (Kind::ConfigMap, "x"),
        ];
        assert_eq!(mounts(&pod), expected);
        assert!(mounts(&json!(null)).is_empty());
    }
}
