//! CIFAR-10 and CIFAR-100 (Krizhevsky 2009), as <https://www.cs.toronto.edu/~kriz/cifar.html> describes their files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use crate::provenance::{FileHasher, sha256_of_lines};
use crate::{
    ArrayDataset, Covers, DataError, DataProvenance, DataSpec, FileDigest, LabelKind, OpenedData, Part, Recognised,
    Result, Split,
};

mod archive;
mod form;
mod python;
mod records;

pub(crate) use archive::open_archive;
pub(crate) use form::Form;
use form::Role;

/// Height and width of every image.
const SIDE: usize = 32;
/// Pixels of one plane.
const PLANE: usize = SIDE * SIDE;
/// Bytes of one image.
const IMAGE_BYTES: usize = 3 * PLANE;
/// Largest file that is read; the largest official one has 155 MB.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Images and labels of one file, in its order.
#[derive(Debug, Default)]
struct Records {
    /// `[n, 32, 32, 3]`.
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

/// Class names as the meta file spells them.
#[derive(Debug, Default)]
struct Names {
    fine: Option<Vec<String>>,
    coarse: Option<Vec<String>>,
}

/// Opens a folder in which [`Form::of_folder`] found a form.
pub(crate) fn open_folder(folder: &Path, form: Form, spec: &DataSpec) -> Result<OpenedData> {
    let mut collector = Collector::new(form, spec)?;
    let mut digests = Vec::new();
    for name in form.file_names() {
        let path = folder.join(name);
        if !path.is_file() {
            continue; // What has to be there is checked at the end, in the same way for archives.
        }
        let io_error = |source| DataError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io_error)?;
        let num_bytes = file.metadata().map_err(io_error)?.len();
        let mut reader = BufReader::with_capacity(1 << 16, HashingReader::new(file));
        collector.read(name, &path, num_bytes, &mut reader)?;
        digests.push(reader.into_inner().finish(name.to_string()).map_err(io_error)?);
    }
    collector.finish(folder, digests)
}

/// Puts the files of one data set together, in whatever order they come.
struct Collector<'a> {
    form: Form,
    spec: &'a DataSpec,
    images: BTreeMap<(Part, usize), Records>,
    names: Names,
}

impl<'a> Collector<'a> {
    fn new(form: Form, spec: &'a DataSpec) -> Result<Self> {
        if !form.is_cifar_100() {
            crate::open::only_fine(spec)?;
        }
        Ok(Self { form, spec, images: BTreeMap::new(), names: Names::default() })
    }

    /// Reads one file if it is one of this form; `path` is for errors.
    fn read(&mut self, name: &str, path: &Path, num_bytes: u64, reader: &mut dyn Read) -> Result<()> {
        let Some(role) = self.form.role(name) else { return Ok(()) };
        if num_bytes > MAX_FILE_BYTES {
            let reason = format!("it claims {num_bytes} bytes, more than the {MAX_FILE_BYTES} that are read");
            return Err(DataError::malformed(path, reason));
        }
        let labels = self.spec.labels;
        match (role, self.form.is_binary()) {
            (Role::Images(part, position), binary) => {
                let records = match binary {
                    true => records::read(self.form, labels, path, num_bytes, reader)?,
                    false => python::read_images(self.form, labels, path, &read_all(path, reader)?)?,
                };
                if self.images.insert((part, position), records).is_some() {
                    return Err(DataError::malformed(path, "the archive holds this file twice"));
                }
            }
            (Role::FineNames, true) => self.names.fine = Some(names_of_text(path, &read_all(path, reader)?)?),
            (Role::CoarseNames, true) => self.names.coarse = Some(names_of_text(path, &read_all(path, reader)?)?),
            (Role::FineNames | Role::CoarseNames, false) => {
                self.names = python::read_names(self.form, path, &read_all(path, reader)?)?;
            }
        }
        Ok(())
    }

    /// Joins the parts; `root` is the folder or the archive.
    fn finish(self, root: &Path, files: Vec<FileDigest>) -> Result<OpenedData> {
        for name in self.form.image_files() {
            let Some(Role::Images(part, position)) = self.form.role(name) else { continue };
            if !self.images.contains_key(&(part, position)) {
                return Err(DataError::malformed(root, format!("{name} is missing in it")));
            }
        }
        let classes = self.classes(root)?;
        let (dataset, official) = join(self.images, classes)?;
        let sha256 = sha256_of_lines(files.iter().map(|file| format!("{} {}", file.name, file.sha256)));
        let provenance = DataProvenance {
            source: self.spec.location.clone(),
            kind: self.form.kind(),
            official: Recognised::from_files(&files),
            files,
            sha256,
            covers: Covers::Contents,
            num_ignored_files: 0,
        };
        Ok(OpenedData { dataset: Arc::new(dataset), official, train_stats: None, provenance })
    }

    /// Names from the meta file, or numbered ones where there is none.
    fn classes(&self, root: &Path) -> Result<Vec<String>> {
        let num_classes = self.form.num_classes(self.spec.labels);
        let names = match self.spec.labels {
            LabelKind::Fine => &self.names.fine,
            LabelKind::Coarse => &self.names.coarse,
        };
        match names {
            None => Ok((0..num_classes).map(|class| format!("class_{class:03}")).collect()),
            Some(names) if names.len() == num_classes => Ok(names.clone()),
            Some(names) => {
                let reason = format!("its meta file names {} classes instead of {num_classes}", names.len());
                Err(DataError::malformed(root, reason))
            }
        }
    }
}

fn join(images: BTreeMap<(Part, usize), Records>, classes: Vec<String>) -> Result<(ArrayDataset, Split)> {
    let mut official = Split::default();
    let mut names = Vec::new();
    let mut all = Records::default();
    all.pixels.reserve_exact(images.values().map(|records| records.pixels.len()).sum());
    for ((part, _), mut records) in images {
        // Consumed one by one, so that at most one file is in memory twice.
        all.pixels.append(&mut records.pixels);
        for label in records.labels {
            official.get_mut(part).push(all.labels.len());
            names.push(format!("{part}/{:05}", official.get(part).len() - 1));
            all.labels.push(label);
        }
    }
    let dataset = ArrayDataset::new([SIDE, SIDE], all.pixels, all.labels, names, classes)?;
    Ok((dataset, official))
}

/// One name a line; empty lines at the end do not count.
fn names_of_text(path: &Path, bytes: &[u8]) -> Result<Vec<String>> {
    let text = std::str::from_utf8(bytes).map_err(|_| DataError::malformed(path, "class names that are not UTF-8"))?;
    Ok(text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect())
}

/// Reads to the end; the caller has bounded the length.
fn read_all(path: &Path, reader: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|source| read_error(path, source))?;
    Ok(bytes)
}

/// Bytes that end early or do not decompress are the file's fault; all else is the system's.
fn read_error(path: &Path, source: io::Error) -> DataError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => DataError::malformed(path, "it is truncated"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            DataError::malformed(path, source.to_string())
        }
        _ => DataError::Io { path: path.to_path_buf(), source },
    }
}

/// Copies one image of three planes into rows of pixels. `plane_byte` gives the byte at a place of the planes.
fn push_interleaved(pixels: &mut Vec<u8>, plane_byte: impl Fn(usize) -> u8) {
    pixels.extend((0..PLANE).flat_map(|place| [place, PLANE + place, 2 * PLANE + place]).map(plane_byte));
}

/// Hashes what is read through it.
struct HashingReader<R> {
    inner: R,
    hasher: FileHasher,
}

impl<R: Read> HashingReader<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: FileHasher::default() }
    }

    /// Reads what is left and gives the digest of everything.
    fn finish(mut self, name: String) -> io::Result<FileDigest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish(name))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let num_bytes = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..num_bytes]);
        Ok(num_bytes)
    }
}
