package watch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// The faults of files. The list is open: expect more.
const (
	// Missing: the certificate file, or a directory on the way to it, does not exist.
	Missing FaultCode = "missing"
	// DanglingLink: a link points to what does not exist.
	DanglingLink FaultCode = "dangling_link"
	// LinkLoop: links lead in a circle, or through more than 40 of them.
	LinkLoop FaultCode = "link_loop"
	// IsDirectory: a directory stands where a file should.
	IsDirectory FaultCode = "directory"
	// NotRegular: a FIFO, socket or device stands where a file should; it is never opened.
	NotRegular FaultCode = "not_regular"
	// TooLarge: the file is larger than 1 MiB; it is not read.
	TooLarge FaultCode = "too_large"
	// NoPermission: this process may not read the file or enter its directory.
	NoPermission FaultCode = "no_permission"
	// IOError: the system cannot read the file for any other reason.
	IOError FaultCode = "io_error"

	// Empty: the file has no bytes, or white space only.
	Empty FaultCode = "empty"
	// NotPEM: there is no PEM block in the file.
	NotPEM FaultCode = "not_pem"
	// BinaryForm: the file is DER, PKCS #7 or PKCS #12 instead of PEM.
	BinaryForm FaultCode = "binary_form"
	// NULBytes: the file holds NUL bytes, as a crash or a full disk leaves them.
	NULBytes FaultCode = "nul_bytes"
	// ByteOrderMark: an editor has put a byte order mark before a PEM block.
	ByteOrderMark FaultCode = "byte_order_mark"
	// JoinedBlocks: a line break is missing between two PEM blocks.
	JoinedBlocks FaultCode = "joined_blocks"
	// HalfWritten: a PEM block is cut off, or the file ends in text of no block.
	HalfWritten FaultCode = "half_written"
	// BadPEM: a PEM block is damaged.
	BadPEM FaultCode = "bad_pem"

	// NoCertificate: the file holds no certificate.
	NoCertificate FaultCode = "no_certificate"
	// BadCertificate: a certificate cannot be parsed.
	BadCertificate FaultCode = "bad_certificate"
	// LeafNotFirst: the leaf is in the file, but not first.
	LeafNotFirst FaultCode = "leaf_not_first"

	// KeyMissing: the key is configured, or was there before, and is not there.
	KeyMissing FaultCode = "key_missing"
	// NoKey: the key file holds no private key.
	NoKey FaultCode = "no_key"
	// SeveralKeys: there is more than one private key in the file.
	SeveralKeys FaultCode = "several_keys"
	// EncryptedKey: the key needs a passphrase.
	EncryptedKey FaultCode = "encrypted_key"
	// BadKey: the key cannot be parsed.
	BadKey FaultCode = "bad_key"
	// OtherKeyType: the key is of another type than the leaf's.
	OtherKeyType FaultCode = "other_key_type"
	// OtherKey: the key is of the right type and belongs to another certificate.
	OtherKey FaultCode = "other_key"
	// Switched: the certificate is in the key's file and the key in the certificate's.
	Switched FaultCode = "switched"

	// DuplicateName: two files claim one name.
	DuplicateName FaultCode = "duplicate_name"
)

// The warnings of a sound pair.
const (
	// ChainDisorder: behind the leaf a certificate is not followed by its issuer.
	ChainDisorder FaultCode = "chain_disorder"
	// KeyReadable: everyone on this host can read the key.
	KeyReadable FaultCode = "key_readable"
)

// The troubles of the watcher itself, told with Blind and Sighted.
const (
	// NoInotify: the system gives no file system events.
	NoInotify FaultCode = "no_inotify"
	// WatchLimit: the system gives no more watches.
	WatchLimit FaultCode = "watch_limit"
	// WatchRefused: a directory cannot be watched.
	WatchRefused FaultCode = "watch_refused"
	// OutOfDescriptors: this process, or the host, can open no more files.
	OutOfDescriptors FaultCode = "out_of_descriptors"
	// BadName: a match of a glob has a name that cannot be a certificate's.
	BadName FaultCode = "bad_name"
	// BadGlob: a glob is malformed or its directory cannot be listed.
	BadGlob FaultCode = "bad_glob"
	// TooManyMatches: the globs match more files than are watched.
	TooManyMatches FaultCode = "too_many_matches"
)

// Absent reports whether the fault is that a file is not there (yet, or any
// more), as opposed to there and not sound.
func (f *Fault) Absent() bool {
	return f.Code == Missing || f.Code == DanglingLink || f.Code == KeyMissing
}

// kind says as what a fault of files is observed.
func (f *Fault) kind() Kind {
	switch f.Code {
	case Missing, DanglingLink, LinkLoop, NoPermission, IOError, KeyMissing:
		return Unreadable
	}
	return Broken
}

func newFault(code FaultCode, path, hint, format string, args ...any) *Fault {
	return &Fault{Code: code, Path: path, Sentence: fmt.Sprintf(format, args...), Hint: hint}
}

// show makes a path or a foreign message fit for a sentence: printable, on one
// line and bounded.
func show(s string) string {
	const most = 512
	if len(s) > most {
		s = s[:most/2] + "..." + s[len(s)-most/2:]
	}
	for _, r := range s {
		if !strconv.IsPrint(r) || r == '�' {
			return strconv.Quote(s)
		}
	}
	return s
}

// systemFault says why the system did not give us path.
func systemFault(path string, err error) *Fault {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return newFault(Missing, path, "wait for the ACME client to write it, or correct the path", "%s does not exist", show(path))
	case errors.Is(err, syscall.ELOOP):
		return newFault(LinkLoop, path, "make the link point to the file", "%s leads through links in a circle", show(path))
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return newFault(NoPermission, path, "give this process access, for example: setfacl -m u:USER:rX on the file and its directories",
			"no permission to read %s", show(path))
	}
	var errno syscall.Errno
	why := err.Error()
	if errors.As(err, &errno) {
		why = errno.Error()
	}
	return newFault(IOError, path, "look at the file system: is it mounted, and is the disk sound?", "%s cannot be read: %s", show(path), show(strings.ToLower(why)))
}

// exhausted reports whether err is about this process or host and says nothing
// of the file.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}
