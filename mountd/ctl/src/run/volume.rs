//! `mountctl volume ...`

use mooring_api::{
    AcceptLoss, AcceptedLoss, ChangeVolume, Client, CreateVolume, CreatedVolume, FileSystem,
    ForceQuery, ResizeVolume, Volume,
};

use crate::cli::{CreateArgs, Setting, VolumeCommand};
use crate::failure::Failure;
use crate::output::Output;
use crate::{progress, render};

/// Does one of the commands.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn run(client: &Client, output: &Output, command: VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::Create(args) => {
            let created = client.create_volume(&request(args)).await?;
            output.answer(&created, |created, _| created_text(created))
        }
        VolumeCommand::Ls => {
            output.answer(&client.volumes().await?, |v, look| render::volumes(v, look))
        }
        VolumeCommand::Inspect { volume, follow } => {
            if follow {
                progress::follow_resync(client, output, &volume).await?;
            }
            output.answer(&client.volume(&volume).await?, render::volume)
        }
        VolumeCommand::Resize { volume, size } => {
            let volume = client.resize_volume(&volume, &ResizeVolume { size }).await?;
            output.answer(&volume, |volume, _| format!("{} has {}", volume.name, volume.size))
        }
        VolumeCommand::Set { volume, settings } => {
            let volume = client.change_volume(&volume, &change(settings)).await?;
            output.answer(&volume, |volume, _| policy_text(volume))
        }
        VolumeCommand::AcceptLoss { volume, from, force } => {
            let loss = client.accept_loss(&volume, &AcceptLoss { from, force }).await?;
            output.answer(&loss, |loss, _| loss_text(loss))
        }
        VolumeCommand::Rm { volume, force } => {
            client.remove_volume(&volume, ForceQuery { force }).await?;
            output.note(&format!("{volume} is removed"));
            Ok(())
        }
    }
}

fn request(args: CreateArgs) -> CreateVolume {
    CreateVolume {
        size: args.size,
        replicas: args.replicas,
        fs: if args.shared { Some(FileSystem::Shared) } else { args.fs },
        slice_size: args.slice_size,
        class: args.class,
        nodes: args.nodes,
        labels: args.labels.into_iter().map(|label| (label.key, label.value)).collect(),
        ..CreateVolume::new(args.volume)
    }
}

/// All settings in one change; the last of several with the same key counts.
fn change(settings: Vec<Setting>) -> ChangeVolume {
    let mut change = ChangeVolume::default();
    for setting in settings {
        match setting {
            Setting::Replicas(count) => change.replicas = Some(count),
            Setting::MinInSync(count) => change.min_in_sync = Some(count),
            Setting::Class(class) => change.class = Some(class),
            Setting::ReplaceAfter(span) => change.replace_after = Some(span),
            Setting::IoTimeout(timeout) => change.io_timeout = Some(timeout),
            Setting::Label(label) => {
                change.remove_labels.retain(|key| *key != label.key);
                change.set_labels.insert(label.key, label.value);
            }
            Setting::NoLabel(key) => {
                change.set_labels.remove(&key);
                change.remove_labels.push(key);
            }
        }
    }
    change
}

fn created_text(created: &CreatedVolume) -> String {
    let Volume { name, size, policy, fs, .. } = &created.volume;
    let verb = if created.created { "created" } else { "there already" };
    let replicas = policy.replicas;
    let copies = if replicas == 1 { "1 replica" } else { &format!("{replicas} replicas") };
    let mut text = format!("{name} {verb}: {size}, {copies}, {}", render::word(fs));
    for chosen in &created.chosen {
        text.push_str(&format!("\n  {} = {} ({})", chosen.option, chosen.value, chosen.why));
    }
    text
}

fn policy_text(volume: &Volume) -> String {
    format!("{}: {}", volume.name, render::policy(&volume.policy))
}

fn loss_text(loss: &AcceptedLoss) -> String {
    if loss.slices.is_empty() {
        return format!("nothing to do: {} has its history", loss.volume);
    }
    let mut text = format!("the replicas on {} are the history of {}", loss.from, loss.volume);
    for slice in &loss.slices {
        text.push_str(&format!("\n  slice {}: kept up to version {}", slice.slice, slice.kept));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_setting_counts() {
        let parse = |text: &str| text.parse::<Setting>().unwrap();
        let words = ["replicas=2", "label.a=1", "replicas=3", "label.a=", "label.b=", "label.b=2"];
        let change = change(words.into_iter().map(parse).collect());
        assert_eq!(change.replicas, Some(3));
        let json = serde_json::to_value(&change).unwrap();
        assert_eq!(json["remove_labels"], serde_json::json!(["a"]));
        assert_eq!(json["set_labels"], serde_json::json!({"b": "2"}));
    }
}
