//! `cargo xtask simulated-gpu`: the CUDA code of the workspace compiled, linked and tested on a machine without a GPU.
//!
//! Needs a C++ compiler and nothing of NVIDIA's: [`build`] makes stand-ins for the libraries out of
//! `tests/simulated_gpu`, a script stands in for the compiler of kernels, and cargo runs with an environment in which
//! build scripts find both.

mod build;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::{cargo, target_folder};

/// The stand-in for NVIDIA's compiler, from the root.
const NVCC: &str = "xtask/nvcc.sh";

/// Every package with CUDA code, and its feature: asked for together, so that what they depend on is built once.
const PACKAGES: [&str; 8] = [
    "--package",
    "taper-kernels",
    "--package",
    "taper-cli",
    "--package",
    "taper-tests",
    "--features",
    "taper-kernels/cuda,taper-cli/cuda,taper-tests/cuda",
];

/// The test that runs the binaries. Of the whole workspace, so that cargo takes what the other tests are built with.
const TEST: [&str; 4] = ["test", "--workspace", "--test", "gpu"];

/// Variables by which build scripts would find a toolkit that is installed.
const TOOLKITS: [&str; 5] = ["CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR", "CUDNN_LIB", "CUDARC_CUDA_VERSION"];

/// Builds the simulated GPU, tests it, and runs cargo on it: the checks of the CUDA code, or what `arguments` ask for.
///
/// # Errors
/// No C++ compiler, sources that it does not compile, or a command that cannot be started. A check that fails is a
/// failing exit code.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<ExitCode> {
    let passed = match arguments {
        [] => check(root)?,
        _ => {
            let gpu = SimulatedGpu::build(root)?;
            gpu.self_test()? && gpu.cargo(root, arguments)?
        }
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lints the CUDA code, runs the binaries on the simulated GPU, and tells whether all passed.
///
/// # Errors
/// As [`run`].
pub(crate) fn check(root: &Path) -> Result<bool> {
    let gpu = SimulatedGpu::build(root)?;
    let clippy = [&["clippy"], &PACKAGES[..], &["--lib", "--bins", "--", "-D", "warnings"]].concat();
    let build = [&["build"], &PACKAGES[..], &["--bins"]].concat();
    Ok(gpu.self_test()? && gpu.cargo(root, &clippy)? && gpu.cargo(root, &build)? && gpu.test(root)?)
}

/// Whether there is what the simulated GPU is made with.
pub(crate) fn has_compiler() -> bool {
    build::compiler().is_ok()
}

/// A folder laid out like a CUDA toolkit: `bin/nvcc`, `lib`.
struct SimulatedGpu {
    folder: PathBuf,
}

impl SimulatedGpu {
    fn build(root: &Path) -> Result<Self> {
        let folder = target_folder(root).join("simulated-gpu");
        build::libraries(root, &folder)?;
        let gpu = Self { folder };
        install_script(&root.join(NVCC), &gpu.nvcc())?;
        Ok(gpu)
    }

    fn nvcc(&self) -> PathBuf {
        self.folder.join("bin").join("nvcc")
    }

    fn self_test(&self) -> Result<bool> {
        let program = self.folder.join(build::SELF_TEST);
        let mut command = Command::new(&program);
        command.envs(self.libraries_first());
        Ok(command.status().with_context(|| format!("cannot start {}", program.display()))?.success())
    }

    /// Calls cargo so that builds link to the stand-ins and programs load them.
    fn cargo(&self, root: &Path, arguments: &[impl AsRef<OsStr>]) -> Result<bool> {
        let words: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        println!("== on the simulated GPU: cargo {}", words.join(" "));
        let mut command = cargo(root);
        command.args(arguments).envs(self.environment());
        for variable in TOOLKITS {
            command.env_remove(variable);
        }
        Ok(command.status().context("cannot start cargo")?.success())
    }

    /// Runs the test of the binaries. It needs no feature, so it is the one that `cargo test` has built.
    fn test(&self, root: &Path) -> Result<bool> {
        let mut command = cargo(root);
        command.args(TEST).envs(self.libraries_first());
        command.env("SIMULATED_GPU", "1").env("TAPER_GPU_BINARIES", self.folder.join("cargo").join("debug"));
        println!("== on the simulated GPU: cargo {}", TEST.join(" "));
        Ok(command.status().context("cannot start cargo")?.success())
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut environment = vec![
            ("NVCC", self.nvcc().into_os_string()),
            ("CUDA_HOME", self.folder.clone().into_os_string()),
            ("CUDA_COMPUTE_CAP", "90".into()),
            ("PATH", prepended(&self.folder.join("bin"), "PATH")),
            // Build scripts keep what a compiler gave them: a real one's output and the stand-in's must not mix.
            ("CARGO_TARGET_DIR", self.folder.join("cargo").into_os_string()),
        ];
        environment.extend(self.libraries_first());
        environment
    }

    fn libraries_first(&self) -> [(&'static str, OsString); 1] {
        [("LD_LIBRARY_PATH", prepended(&self.folder.join("lib"), "LD_LIBRARY_PATH"))]
    }
}

/// A list of folders from the environment, with one more in front.
fn prepended(first: &Path, variable: &str) -> OsString {
    let mut list = first.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os(variable).filter(|rest| !rest.is_empty()) {
        list.push(":");
        list.push(rest);
    }
    list
}

/// Copies a script to where it is looked for, so that it can be started.
fn install_script(from: &Path, to: &Path) -> Result<()> {
    let copy = || {
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::copy(from, to)?;
        make_executable(to)
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(unix)]
fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::{NVCC, SimulatedGpu};

    /// What the stand-in writes for these arguments, in a folder of its own.
    ///
    /// The shell reads the script. A copy made here could not be started for sure: while a program that another test
    /// has begun to start still holds the copy open for writing, the system answers that the file is busy.
    fn nvcc(arguments: &[&str]) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(NVCC);
        let output = Command::new("sh").arg(script).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (folder, String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn the_stand_in_tells_a_version_where_build_scripts_look_for_it() {
        let said = nvcc(&["--version"]).1;
        assert!(said.lines().nth(3).unwrap().split(", ").nth(1).unwrap().starts_with("release 13.0"));
        assert_eq!(nvcc(&["--list-gpu-code"]).1, "sm_90\n");
    }

    #[test]
    fn the_stand_in_names_the_source_of_a_module() {
        let (folder, _) =
            nvcc(&["--fatbin", "-O3", "-gencode", "arch=compute_90,code=sm_90", "-o", "pool", "cuda/pool.cu"]);
        assert_eq!(std::fs::read_to_string(folder.path().join("pool")).unwrap(), "simulated module pool\n");
        let (folder, _) = nvcc(&["--ptx", "--output-directory", ".", "-std=c++17", "src/cast.cu"]);
        assert_eq!(std::fs::read_to_string(folder.path().join("cast.ptx")).unwrap(), "simulated module cast\n");
    }

    #[test]
    fn the_stand_in_writes_objects_and_archives_without_content() {
        let (folder, _) = nvcc(&["-c", "-o", "moe.o", "src/moe.cu"]);
        assert_eq!(std::fs::read(folder.path().join("moe.o")).unwrap(), b"");
        let (folder, _) = nvcc(&["--lib", "-o", "libmoe.a", "moe.o"]);
        assert_eq!(std::fs::read(folder.path().join("libmoe.a")).unwrap(), b"!<arch>\n");
    }

    #[test]
    fn builds_find_the_stand_ins_first() {
        let gpu = SimulatedGpu { folder: "/made".into() };
        let environment: std::collections::BTreeMap<_, _> = gpu.environment().into_iter().collect();
        assert_eq!(environment["NVCC"], "/made/bin/nvcc");
        assert!(environment["PATH"].to_str().unwrap().starts_with("/made/bin"));
        assert!(environment["LD_LIBRARY_PATH"].to_str().unwrap().starts_with("/made/lib"));
    }
}
