//! `mountctl node ...`

use mooring_api::{ChangeLabels, Client, ForceQuery};

use crate::cli::NodeCommand;
use crate::failure::Failure;
use crate::output::Output;
use crate::{progress, render};

/// Does one of the commands.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn run(client: &Client, output: &Output, command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::Ls => output.answer(&client.nodes().await?, |n, look| render::nodes(n, look)),
        NodeCommand::Inspect { node } => output.answer(&client.node(&node).await?, render::node),
        NodeCommand::Label { node, labels, remove } => {
            let set = labels.into_iter().map(|label| (label.key, label.value)).collect();
            let node = client.change_node(&node, &ChangeLabels { set, remove }).await?;
            output.answer(&node, |node, _| {
                format!("labels of {}: {}", node.name, render::labels(&node.labels))
            })
        }
        NodeCommand::Drain { node, undo: true, .. } => {
            client.undrain_node(&node).await?;
            output.note(&format!("{node} takes replicas again"));
            Ok(())
        }
        NodeCommand::Drain { node, no_wait, .. } => {
            let task = client.drain_node(&node).await?;
            let task = match no_wait {
                true => task,
                false => progress::follow(client, output, task).await?,
            };
            output.answer(&task, render::task)
        }
        NodeCommand::Rm { node, force } => {
            client.remove_node(&node, ForceQuery { force }).await?;
            output.note(&format!("{node} is no longer of this cluster"));
            Ok(())
        }
    }
}
