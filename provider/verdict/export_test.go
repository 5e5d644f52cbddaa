package verdict

import (
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Remembered is the image that is asked about when ref was.
func Remembered(ref image.Reference, allowed ...signature.KeyID) (image.Reference, error) {
	return ask(ref, allowed).reference()
}

// Same reports whether the answer to one question is given to the other.
func Same(a, b image.Reference) bool { return ask(a, nil) == ask(b, nil) }

// Recalled is evidence as it comes back from memory.
func Recalled(ev Evidence) Evidence { return remember(ev, true).evidence(nil) }
