//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::recipe::FinetuneRecipe;

/// Train image classifiers, evaluate them and use them.
#[derive(Debug, Parser)]
#[command(name = "taper", version, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print results only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train from scratch; without arguments, a small BaseNet on the built-in data set
    Train(Box<TrainArgs>),
    /// Train pretrained weights further on your own images: the head alone, or the whole network
    Finetune(Box<FinetuneArgs>),
    /// Train a finished run again from what it wrote down, and compare the results
    Reproduce(ReproduceArgs),
    /// Measure trained weights: top-1, top-5, loss, recall of each class
    Evaluate(EvaluateArgs),
    /// Classify image files and folders
    Predict(PredictArgs),
    /// Write weights as torchvision, timm or transformers expect them
    Export(ExportArgs),
    /// Look into data, a model, weights or a run; changes nothing
    Inspect(InspectArgs),
    /// Download weights or data, verify them, keep them
    Fetch(FetchArgs),
    /// Write one self-contained HTML page about a run, or about several side by side
    Report(ReportArgs),
    /// Search for a learning rate: raise it step by step and watch the loss
    LrFind(Box<LrFindArgs>),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
    /// Write the man pages
    #[command(hide = true)]
    Man(ManArgs),
}

/// `taper train`
#[derive(Debug, Default, Args)]
pub(crate) struct TrainArgs {
    /// glyphs (built in), a CIFAR folder or archive, the folder of CUB-200, or an image folder
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
    /// Architecture: basenet, resnet18, resnet34, resnet50, resnet101, resnet152, ablation0 to ablation10
    #[arg(long)]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) flags: TrainingFlags,
    /// Go on with an interrupted run; auto: with the one that this command began, or begin it
    #[arg(long, value_name = "RUN|auto", conflicts_with = "dry_run")]
    pub(crate) resume: Option<Resume>,
}

/// `taper finetune`
#[derive(Debug, Args)]
pub(crate) struct FinetuneArgs {
    /// A folder of photos, one folder a class, or CUB-200 with its lists; also a CIFAR folder or archive, or glyphs
    #[arg(value_name = "DATA", required_unless_present = "resume")]
    pub(crate) data: Option<String>,
    /// Pretrained weights: a name (resnet18, resnet50.a1_in1k, owner/name), which is fetched unless it is cached; a
    /// file (.safetensors or .pth, in the names of torchvision, timm or transformers); or a run directory
    #[arg(long, value_name = "NAME|FILE|RUN", required_unless_present = "resume")]
    pub(crate) weights: Option<String>,
    /// What keeps its values: none, backbone (only the head is trained), until:LAYER (as until:layer4)
    #[arg(long, value_name = "POLICY")]
    pub(crate) freeze: Option<String>,
    /// What all other settings start from
    #[arg(long, value_enum, default_value_t = FinetuneRecipe::Default)]
    pub(crate) recipe: FinetuneRecipe,
    #[command(flatten)]
    pub(crate) flags: TrainingFlags,
    /// Go on with an interrupted run; auto: with the one that this command began, or begin it
    #[arg(long, value_name = "RUN|auto", conflicts_with = "dry_run")]
    pub(crate) resume: Option<Resume>,
}

/// What `--resume` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// The run that the same command began before it was stopped, if it did: what a scheduler that requeues gives.
    Auto,
    /// A run directory; one that is called `auto` is meant by `./auto`.
    Run(PathBuf),
}

impl std::str::FromStr for Resume {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "auto" { Self::Auto } else { Self::Run(text.into()) })
    }
}

/// What all commands that train take.
#[derive(Debug, Default, Args)]
pub(crate) struct TrainingFlags {
    /// TOML file with any of the configuration keys
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one configuration key, as in --set optim.lr=0.1; repeatable, beats the file
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Passes over the training images
    #[arg(long)]
    pub(crate) epochs: Option<u64>,
    /// Images of one step
    #[arg(short, long)]
    pub(crate) batch_size: Option<u64>,
    /// Peak learning rate
    #[arg(long)]
    pub(crate) lr: Option<f64>,
    /// Optimizer: sgd, adamw
    #[arg(long)]
    pub(crate) opt: Option<String>,
    /// Schedule of the learning rate: constant, step, cosine, one-cycle
    #[arg(long)]
    pub(crate) sched: Option<String>,
    /// Seed of split, initial weights, order and augmentation
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Threads that read and transform images; 0 does it in the training thread
    #[arg(short = 'j', long)]
    pub(crate) workers: Option<u64>,
    /// cpu, cuda, cuda:N or auto
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Type of activations: f32; on a GPU also bf16, or tf32: f32 with products of rounded factors
    #[arg(long)]
    pub(crate) dtype: Option<String>,
    /// When the loss or the gradients stop being numbers: stop, or rollback to the newest checkpoint and on with a tenth
    /// of the learning rate, once
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_nonfinite: Option<String>,
    /// Run directory to make; `runs/<data>-<number>` if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Check everything, do one step, estimate memory and time; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the configuration with the source of each value, and end
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// `taper reproduce`
#[derive(Debug, Args)]
pub(crate) struct ReproduceArgs {
    /// The directory of a run that is complete
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Run directory to make; `RUN-again` if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// The data, if they lie elsewhere by now
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
}

/// `taper report`
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Run directories; with several, the page compares them
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// File to write; report.html in the run's directory, or in this one for several runs, if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also write the epochs of all runs as CSV
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Name of an image that Grad-CAM shall explain, as in predictions-test.csv; repeatable
    #[arg(long = "image", value_name = "NAME")]
    pub(crate) images: Vec<String>,
}

/// `taper lr-find`
#[derive(Debug, Args)]
pub(crate) struct LrFindArgs {
    /// What would be trained; nothing of it is kept
    #[command(flatten)]
    pub(crate) train: TrainArgs,
    /// Rate of the first step
    #[arg(long, value_name = "LR", default_value_t = 1e-5)]
    pub(crate) from: f64,
    /// Rate of the last step, if the loss does not explode before
    #[arg(long, value_name = "LR", default_value_t = 10.0)]
    pub(crate) to: f64,
    /// Steps between the two
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) steps: u64,
}

/// `taper completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// `taper man`
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder to write them into
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

/// `taper evaluate`
#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// A run directory, or a weights file: taper's, or a ResNet of torchvision, timm or transformers
    #[arg(value_name = "RUN|FILE")]
    pub(crate) weights: PathBuf,
    /// Data other than the run's own
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
    /// train, val or test
    #[arg(long, default_value = "val")]
    pub(crate) split: taper_data::Part,
    /// Average over changed copies of each image: mirrored ones, or mirrored ones moved by two pixels as well
    #[arg(long, value_enum, default_value_t = Tta::None)]
    pub(crate) tta: Tta,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Images at a time
    #[arg(short, long, default_value_t = 64)]
    pub(crate) batch_size: u64,
    /// Threads that read images
    #[arg(short = 'j', long, default_value_t = 1)]
    pub(crate) workers: u64,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Type of activations: f32; on a GPU also bf16, or tf32: f32 with products of rounded factors; left out, that of the
    /// run's training on a GPU, and f32 for a weights file
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<String>,
}

/// Copies of an image whose probabilities are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tta {
    /// The image alone
    None,
    /// The image and its mirror image
    Flip,
    /// Both, and both moved by two pixels up, down, left and right
    #[value(name = "flip+shift")]
    FlipShift,
}

/// How a submission names a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SubmittedLabel {
    /// By its index
    Index,
    /// By its name
    Name,
}

/// What `taper predict` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PredictFormat {
    /// Path, class and probability of each file
    Table,
    /// A submission: ID and Label of each test image, in the order of the test set
    Kaggle,
}

/// `taper predict`
#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    /// A run directory, or a weights file: taper's, or a ResNet of torchvision, timm or transformers
    #[arg(value_name = "RUN|FILE")]
    pub(crate) weights: PathBuf,
    /// Image files, and folders of them
    #[arg(required_unless_present = "format", value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// What to write; kaggle without a PATH takes the test images of the run's data
    #[arg(long, value_enum, default_value_t = PredictFormat::Table)]
    pub(crate) format: PredictFormat,
    /// Names of a submission's two columns
    #[arg(long, value_name = "ID,LABEL", default_value = "ID,Label")]
    pub(crate) header: String,
    /// What stands in a submission's second column
    #[arg(long, value_enum, default_value_t = SubmittedLabel::Index)]
    pub(crate) label: SubmittedLabel,
    /// Write the table to a file instead
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Classes per image
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) topk: u64,
    /// Add the logits of all classes
    #[arg(long)]
    pub(crate) logits: bool,
    /// Images at a time
    #[arg(short, long, default_value_t = 64)]
    pub(crate) batch_size: u64,
    /// Threads that read images
    #[arg(short = 'j', long, default_value_t = 1)]
    pub(crate) workers: u64,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Type of activations: f32; on a GPU also bf16, or tf32: f32 with products of rounded factors; left out, that of the
    /// run's training on a GPU, and f32 for a weights file
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<String>,
}

/// `taper export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A run directory, or a weights file of a ResNet
    #[arg(value_name = "RUN|FILE")]
    pub(crate) weights: PathBuf,
    /// The library that shall load it
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// A file *.safetensors, with configurations beside it, or a new folder for model.safetensors and them
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) output: PathBuf,
}

/// The libraries that can be exported to.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportFormat {
    Torchvision,
    Timm,
    Transformers,
}

/// `taper inspect`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    pub(crate) what: Inspect,
}

/// What can be looked into.
#[derive(Debug, Subcommand)]
pub(crate) enum Inspect {
    /// Images, classes, sizes, mean and standard deviation, unreadable files
    Data {
        /// glyphs, a CIFAR folder or archive, the folder of CUB-200, or an image folder
        #[arg(value_name = "DATA")]
        location: String,
    },
    /// Layers, parameters and multiply-adds
    Model {
        /// basenet, resnet18 and so on, a run directory or a weights file
        #[arg(value_name = "NAME|RUN|FILE")]
        model: String,
        /// Set one key of the model, as in --set model.width=0.125
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Classes the head tells apart, for a model by name
        #[arg(long, default_value_t = 100)]
        classes: u64,
    },
    /// Architecture, classes, names and shapes of a file of safetensors or torch.save
    Weights {
        /// The file, or a run directory
        #[arg(value_name = "FILE|RUN")]
        file: PathBuf,
    },
    /// How a run went, or goes
    Run {
        /// The run directory
        #[arg(value_name = "RUN")]
        run: PathBuf,
    },
}

/// `taper fetch`
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    #[command(subcommand)]
    pub(crate) what: Fetch,
}

/// What can be fetched.
#[derive(Debug, Subcommand)]
pub(crate) enum Fetch {
    /// Pretrained weights, into the cache that Python's huggingface_hub uses too; prints the file
    Weights {
        /// resnet18, resnet50.a1_in1k and so on, or any owner/name or owner/name@revision of a hub
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// A data set, unpacked; prints its folder
    Data {
        /// cifar-10, cifar-100, cifar-10-python, cifar-100-python, cub-200-2011, cub-200-2010
        #[arg(value_name = "NAME")]
        name: String,
        /// Folder to make the data set's folder in
        #[arg(long, value_name = "DIR", default_value = ".")]
        output: PathBuf,
    },
}
