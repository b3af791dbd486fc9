//! Compiles the simulated GPU: shared libraries under the names of NVIDIA's, and the program that tests them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

/// Folder of the sources, from the root.
const SOURCES: &str = "tests/simulated_gpu";
/// Folder of the kernels, which are compiled with them.
const KERNELS: &str = "crates/kernels/cuda";
/// Name of the program that tests the libraries.
pub(super) const SELF_TEST: &str = "self-test";

/// A shared library.
struct Library {
    /// Without `lib` and what follows the name.
    name: &'static str,
    /// NVIDIA's number for the interface, part of the file's name.
    version: u32,
    /// Folders of sources, or single files.
    sources: &'static [&'static str],
}

/// The driver holds the device, so it comes first: the others link to it.
const LIBRARIES: [Library; 7] = [
    Library { name: "cuda", version: 1, sources: &["", "driver", "kernels", "candle"] },
    Library { name: "cublas", version: 13, sources: &["cublas"] },
    Library { name: "curand", version: 10, sources: &["curand"] },
    Library { name: "cudnn", version: 9, sources: &["cudnn"] },
    Library { name: "cublasLt", version: 13, sources: &["linked/cublaslt.cpp"] },
    Library { name: "nvrtc", version: 13, sources: &["linked/nvrtc.cpp"] },
    Library { name: "cudart", version: 13, sources: &["linked/cudart.cpp"] },
];

/// What every source is compiled with. Without contraction a product rounds before it is added to, as the kernels'
/// intrinsics say; kernels look at memory by several types; a misaligned access is a fault on a GPU.
const FLAGS: [&str; 10] = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fsanitize=alignment",
    "-fno-sanitize-recover=alignment",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
];

/// Makes libraries and test under `folder`; compiles only what is older than its sources.
///
/// # Errors
/// No C++ compiler, an error of it, or files that cannot be read or written.
pub(super) fn libraries(root: &Path, folder: &Path) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("the simulated GPU needs Linux: it replaces libraries by their names there");
    }
    let build = Build { compiler: compiler()?, sources: root.join(SOURCES), folder: folder.to_owned() };
    let newest = build.newest_header(&root.join(KERNELS))?;
    let test = build.objects_of(&["self_test"])?;
    let libraries: Vec<_> =
        LIBRARIES.iter().map(|library| Ok((library, build.objects_of(library.sources)?))).collect::<Result<_>>()?;
    let all: Vec<_> = libraries.iter().flat_map(|(_, objects)| objects).chain(&test).collect();
    build.compile(all.into_iter().filter(|object| object.is_older_than(newest)).collect())?;
    for (library, objects) in &libraries {
        build.link_library(library, objects)?;
    }
    build.link_test(&test)
}

/// The C++ compiler: `CXX`, else the first of the usual names that starts.
pub(super) fn compiler() -> Result<OsString> {
    compiler_of(std::env::var_os("CXX").filter(|name| !name.is_empty()))
}

fn compiler_of(named: Option<OsString>) -> Result<OsString> {
    let names = named.map_or_else(|| ["g++", "c++", "clang++"].map(OsString::from).to_vec(), |name| vec![name]);
    for name in &names {
        let starts = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if starts.is_ok_and(|status| status.success()) {
            return Ok(name.clone());
        }
    }
    bail!(
        "no C++ compiler was found ({names:?}), and the simulated GPU is made with one; install g++ (Debian and Ubuntu: \
         apt install g++, Fedora: dnf install gcc-c++), or name a compiler in CXX"
    )
}

struct Build {
    compiler: OsString,
    sources: PathBuf,
    folder: PathBuf,
}

/// A source and what it is compiled to.
struct Object {
    source: PathBuf,
    object: PathBuf,
}

impl Object {
    fn is_older_than(&self, newest_header: SystemTime) -> bool {
        let (Ok(made), Ok(source)) = (modified(&self.object), modified(&self.source)) else { return true };
        made < source.max(newest_header)
    }
}

impl Build {
    fn objects_of(&self, sources: &[&str]) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        for &name in sources {
            let path = self.sources.join(name);
            let files = if path.is_file() { vec![path] } else { files(&path, &["cpp"])? };
            for source in files {
                let inside = source.strip_prefix(&self.sources)?.with_extension("o");
                objects.push(Object { object: self.folder.join("objects").join(inside), source });
            }
        }
        Ok(objects)
    }

    /// When anything was changed that sources include.
    fn newest_header(&self, kernels: &Path) -> Result<SystemTime> {
        let mut headers = files(kernels, &["cu", "cuh"])?;
        for folder in with_subfolders(&self.sources)? {
            headers.extend(files(&folder, &["hpp", "h"])?);
        }
        headers.iter().try_fold(SystemTime::UNIX_EPOCH, |newest, header| Ok(newest.max(modified(header)?)))
    }

    /// Compiles on all processors; the first error is the answer.
    fn compile(&self, objects: Vec<&Object>) -> Result<()> {
        if !objects.is_empty() {
            println!("compiling {} files of the simulated GPU", objects.len());
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let waiting = Mutex::new(objects.into_iter());
        let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
        let work = || -> Result<()> {
            while let Some(object) = next() {
                self.compile_one(object)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(_) => bail!("a thread of the build ended"),
            })
        })
    }

    fn compile_one(&self, Object { source, object }: &Object) -> Result<()> {
        if let Some(folder) = object.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut command = Command::new(&self.compiler);
        command.args(FLAGS).arg("-I").arg(self.sources.join("shim")).arg("-c").arg(source).arg("-o").arg(object);
        succeed(command)
    }

    fn link_library(&self, library: &Library, objects: &[Object]) -> Result<()> {
        let folder = self.folder.join("lib");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let short = format!("lib{}.so", library.name);
        let full = format!("{short}.{}", library.version);
        let mut command = Command::new(&self.compiler);
        command.arg("-shared").args(objects.iter().map(|object| &object.object));
        command.arg(format!("-Wl,-soname,{full}")).args(["-Wl,-z,defs", "-pthread", "-o"]).arg(folder.join(&full));
        if library.name != LIBRARIES[0].name {
            command.arg("-L").arg(&folder).arg(format!("-l{}", LIBRARIES[0].name));
        }
        succeed(command)?;
        link(&full, &folder.join(&short))
    }

    fn link_test(&self, objects: &[Object]) -> Result<()> {
        let mut command = Command::new(&self.compiler);
        command.args(objects.iter().map(|object| &object.object)).arg("-pthread");
        command.arg("-L").arg(self.folder.join("lib")).args(["-lcuda", "-lcublas", "-lcurand", "-lcudnn", "-o"]);
        command.arg(self.folder.join(SELF_TEST));
        succeed(command)
    }
}

/// Files of a folder, not of those in it, with one of these extensions; by name.
fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if extensions.contains(&extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A folder and those directly in it.
fn with_subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", folder.display());
    let mut folders = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).with_context(context)? {
        folders.push(entry.with_context(context)?.path());
    }
    folders.retain(|path| path.is_dir());
    Ok(folders)
}

fn modified(path: &Path) -> Result<SystemTime> {
    std::fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .with_context(|| format!("cannot read {}", path.display()))
}

/// Runs a compiler; what it prints goes to the terminal.
fn succeed(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Makes `link` point to a file beside it, in place of one that may be there.
fn link(file: &str, link: &Path) -> Result<()> {
    if link.is_symlink() {
        std::fs::remove_file(link).with_context(|| format!("cannot replace {}", link.display()))?;
    }
    symlink(file, link).with_context(|| format!("cannot make {}", link.display()))
}

#[cfg(unix)]
fn symlink(file: &str, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(file, link)
}

#[cfg(not(unix))]
fn symlink(file: &str, link: &Path) -> std::io::Result<()> {
    std::fs::copy(link.with_file_name(file), link).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::{Build, LIBRARIES, Object, SOURCES, compiler_of, files, with_subfolders};

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn every_source_is_part_of_one_library_or_of_the_test() {
        let build = Build { compiler: "".into(), sources: root().join(SOURCES), folder: "/made".into() };
        let mut compiled: Vec<_> = LIBRARIES
            .iter()
            .flat_map(|library| build.objects_of(library.sources).unwrap())
            .chain(build.objects_of(&["self_test"]).unwrap())
            .map(|object| object.source)
            .collect();
        compiled.sort();
        let folders = with_subfolders(&build.sources).unwrap();
        let mut there: Vec<_> = folders.iter().flat_map(|folder| files(folder, &["cpp"]).unwrap()).collect();
        there.sort();
        assert_eq!(compiled, there);
    }

    #[test]
    fn without_a_compiler_the_error_says_what_to_install() {
        let error = compiler_of(Some("no-such-compiler".into())).unwrap_err().to_string();
        assert!(error.contains("no-such-compiler") && error.contains("apt install g++"), "{error}");
    }

    #[test]
    fn an_object_is_made_anew_when_its_source_or_a_header_is_newer() {
        let folder = tempfile::tempdir().unwrap();
        let [source, object] = ["a.cpp", "a.o"].map(|name| folder.path().join(name));
        let pair = Object { source: source.clone(), object: object.clone() };
        std::fs::write(&source, "").unwrap();
        assert!(pair.is_older_than(SystemTime::UNIX_EPOCH));
        std::fs::write(&object, "").unwrap();
        assert!(!pair.is_older_than(SystemTime::UNIX_EPOCH));
        assert!(pair.is_older_than(SystemTime::now() + Duration::from_secs(60)));
    }
}
