package server

// The five structs of Gatekeeper's external data protocol. They are declared
// here because the package that Gatekeeper declares them in brings OPA along; a
// test holds them to it, field by field.

const (
	apiVersion   = "externaldata.gatekeeper.sh/v1beta1"
	kindRequest  = "ProviderRequest"
	kindResponse = "ProviderResponse"
)

// ProviderRequest is what Gatekeeper sends.
type ProviderRequest struct {
	APIVersion string  `json:"apiVersion,omitempty"`
	Kind       string  `json:"kind,omitempty"`
	Request    Request `json:"request,omitempty"`
}

// Request holds the questions, each one a string that Gatekeeper neither reads
// nor makes unique.
type Request struct {
	Keys []string `json:"keys,omitempty"`
}

// ProviderResponse is what Gatekeeper gets.
type ProviderResponse struct {
	APIVersion string   `json:"apiVersion,omitempty"`
	Kind       string   `json:"kind,omitempty"`
	Response   Response `json:"response,omitempty"`
}

// Response holds the answers. A question that is not among the items has not
// been answered, and SystemError says why.
type Response struct {
	Idempotent  bool   `json:"idempotent,omitempty"`
	Items       []Item `json:"items,omitempty"`
	SystemError string `json:"systemError,omitempty"`
}

// Item answers one question: Key is the question byte for byte, Value its
// verdict, Error why it is not a question at all.
type Item struct {
	Key   string `json:"key,omitempty"`
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}
