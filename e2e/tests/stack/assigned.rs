//! The platform says as whom pods run, as on OpenShift: a user id that no image knows, in group 0.

use anyhow::{Result, ensure};

use crate::world::World;

#[tokio::test]
async fn every_process_runs_as_the_user_of_the_namespace() -> Result<()> {
    let world = World::enter().await?;
    for component in ["api", "pgbouncer", "redis", "database"] {
        let pods = world.stack.pods(component).await?;
        ensure!(!pods.is_empty(), "no {component} runs");
        for (pod, _) in pods {
            let processes = world.processes(&pod).await?;
            ensure!(!processes.is_empty(), "no process of {pod}");
            for process in processes {
                // One that has ended meanwhile, such as a probe's, says nothing.
                let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { continue };
                let ids = |field: &str| -> Vec<u32> {
                    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
                    line.split_whitespace().filter_map(|id| id.parse().ok()).collect()
                };
                let (user, group, groups) = (ids("Uid:"), ids("Gid:"), ids("Groups:"));
                ensure!(user == [world.user; 4] && group == [0; 4], "{pod}: user {user:?}, group {group:?}");
                ensure!(groups.contains(&world.user), "{pod}: the volumes' group is missing in {groups:?}");
            }
        }
    }
    Ok(())
}
