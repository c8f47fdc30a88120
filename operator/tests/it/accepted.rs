//! A real API server, with the real definitions of the other projects, accepts every object of every golden case.

use std::fs;

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::render;
use persesstack_operator::settings::Settings;

use crate::cluster::{Space, equipped};
use crate::golden::{capabilities, cases};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_golden_object_is_accepted() {
    let Some(plane) = equipped() else { return };
    let space = Space::on(plane, "accepted").await;
    let params = PatchParams { dry_run: true, ..PatchParams::apply("test") }.validation_strict();
    let (mut seen, mut refused) = (0, Vec::new());
    for case in cases() {
        let input = fs::read_to_string(case.join("input.yaml")).unwrap();
        for stack in render::render(&input, &Settings::default(), capabilities(&case)).unwrap() {
            for mut object in render::objects(&stack).unwrap() {
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                let word = object["kind"].as_str().unwrap().to_owned();
                let api: Api<DynamicObject> = if word == "ClusterRoleBinding" {
                    Api::all_with(space.client.clone(), &ApiResource::erase::<ClusterRoleBinding>(&()))
                } else {
                    object["metadata"]["namespace"] = space.namespace.as_str().into();
                    space.api(Kind::all().find(|kind| word == kind.name()).unwrap())
                };
                if let Err(error) = api.patch(&name, &params, &Patch::Apply(&object)).await {
                    refused.push(format!("{}: {word} {name}: {error}", case.display()));
                }
                seen += 1;
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(seen > 100, "only {seen} objects");
}
