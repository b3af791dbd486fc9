//! Compiles the CUDA kernels, where the feature `cuda` asks for them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Machine code for Ampere, Ada and Hopper, and PTX from which the driver makes code for whatever comes later.
const TARGETS: [&str; 4] = [
    "arch=compute_80,code=sm_80",
    "arch=compute_89,code=sm_89",
    "arch=compute_90,code=sm_90",
    "arch=compute_90,code=compute_90",
];

/// One module each; `src/cuda/gpu.rs` loads them under these names.
const MODULES: [&str; 7] = ["batch_norm", "elementwise", "images", "loss", "pool", "update", "weights"];

fn main() {
    println!("cargo:rerun-if-changed=cuda");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { fail("OUT_DIR is not set; build with cargo") };
    let nvcc = nvcc();
    println!("cargo:rustc-env=TAPER_CUDA_VERSION={}", toolkit_version(&nvcc));
    for module in MODULES {
        compile(&nvcc, module, &out);
    }
}

/// The compiler: `NVCC`, else the toolkit's in `CUDA_HOME` or `CUDA_PATH`, else the one on the path.
fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    let toolkit = ["CUDA_HOME", "CUDA_PATH"].into_iter().find_map(env::var_os);
    let inside = toolkit.map(|folder| Path::new(&folder).join("bin").join("nvcc"));
    inside.filter(|path| path.exists()).unwrap_or_else(|| "nvcc".into())
}

/// The toolkit's version as the driver counts: `1000 · major + 10 · minor`.
fn toolkit_version(nvcc: &Path) -> u32 {
    let said = match Command::new(nvcc).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => fail(&missing(nvcc, &error)),
    };
    let release = said.split("release ").nth(1).and_then(|rest| rest.split(',').next());
    let numbers = release.and_then(|release| release.trim().split_once('.'));
    match numbers.and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))) {
        Some((major, minor)) => 1000 * major + 10 * minor,
        None => fail(&format!("{} --version names no release", nvcc.display())),
    }
}

fn missing(nvcc: &Path, error: &std::io::Error) -> String {
    format!(
        "the feature `cuda` needs NVIDIA's compiler, and {} does not start ({error}); install the CUDA toolkit 13, or set \
         CUDA_HOME to its folder",
        nvcc.display()
    )
}

fn compile(nvcc: &Path, module: &str, out: &Path) {
    let mut command = Command::new(nvcc);
    command.args(["--fatbin", "-O3", "-std=c++17"]);
    for target in TARGETS {
        command.args(["-gencode", target]);
    }
    command.arg("-o").arg(out.join(module).with_extension("fatbin")).arg(format!("cuda/{module}.cu"));
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{} could not compile cuda/{module}.cu ({status})", nvcc.display())),
        Err(error) => fail(&missing(nvcc, &error)),
    }
}

fn fail(problem: &str) -> ! {
    println!("cargo:warning={problem}");
    exit(1)
}
