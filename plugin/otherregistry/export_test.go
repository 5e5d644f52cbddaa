package otherregistry

import (
	"net/http"
	"time"
)

func SetTimeout(c *Client, d time.Duration) { c.timeout = d }

func Own(registry, host string) bool { return own(registry, host) }

func Guard(registry string, next http.RoundTripper) http.RoundTripper { return guard{registry, next} }
