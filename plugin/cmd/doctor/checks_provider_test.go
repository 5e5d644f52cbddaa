package doctor_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/plugin/cmd/doctor"
)

func TestProviders(t *testing.T) {
	told(t, "providers", map[string]row{
		"a sound cluster": {sound, []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
		}},
		"no Provider": {gone(provider), []string{
			"fails: OKESignedImages/signed asks the Provider oke-sign, which does not exist: every image of OCI Registry is denied",
			"-> install the provider with the chart oke-sign",
		}},
		"a constraint that names another": {at(signed, "mine", "spec,parameters,provider"), []string{
			"fails: OKESignedImages/signed asks the Provider mine, which does not exist: every image of OCI Registry is denied",
			"-> install the provider with the chart oke-sign",
		}},
		"no CA": {at(provider, nil, "spec,caBundle"), []string{
			"fails: oke-sign: caBundle: it is empty, so Gatekeeper connects to nothing",
			"-> restart the provider, which writes the caBundle, or set caBundle of the chart oke-sign",
		}},
		"a CA that is no base64": {at(provider, "!", "spec,caBundle"), []string{
			"fails: oke-sign: caBundle: it is not base64",
			"-> restart the provider, which writes the caBundle, or set caBundle of the chart oke-sign",
		}},
		"a CA that is no PEM": {at(provider, "eA==", "spec,caBundle"), []string{
			"fails: oke-sign: caBundle: it holds no certificate in PEM",
			"-> restart the provider, which writes the caBundle, or set caBundle of the chart oke-sign",
		}},
		"a CA that is no certificate": {at(provider, pemOf("CERTIFICATE", "x"), "spec,caBundle"), []string{
			"fails: oke-sign: caBundle: it holds no certificate in PEM: x509: malformed certificate",
			"-> restart the provider, which writes the caBundle, or set caBundle of the chart oke-sign",
		}},
		"a CA beside a key": {beside(provider, "PRIVATE KEY", "spec", "caBundle"), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
		}},
		"a CA that lasts": {earlier(60 * 24 * time.Hour), []string{
			"holds: oke-sign: time-out 2 s of the webhook's 5 s",
		}},
		"a CA that has ended": {func(w *world) { w.Now = w.Now.Add(100 * time.Hour) }, []string{
			"fails: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
		}},
		"no time-out": {at(provider, nil, "spec,timeout"), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
			"fails: oke-sign has no time-out, so every request fails at once",
			`-> kubectl patch provider oke-sign --type merge -p '{"spec":{"timeout":2}}'`,
		}},
		"a time-out in words": {at(provider, "2s", "spec,timeout"), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
			"fails: oke-sign has no time-out, so every request fails at once",
			`-> kubectl patch provider oke-sign --type merge -p '{"spec":{"timeout":2}}'`,
		}},
		"a time-out below zero": {at(provider, int64(-1), "spec,timeout"), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
			"fails: oke-sign has no time-out, so every request fails at once",
			`-> kubectl patch provider oke-sign --type merge -p '{"spec":{"timeout":2}}'`,
		}},
		"a time-out as long as the webhook's": {at(provider, int64(5), "spec,timeout"), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
			"fails: the time-out of oke-sign is 5 s, and the webhook's is 5 s: a slow answer ends the webhook's call without a reason",
			`-> kubectl patch provider oke-sign --type merge -p '{"spec":{"timeout":2}}'`,
		}},
		"a webhook that says no time-out has 10 s": {all(at(webhook, nil, "webhooks,0,timeoutSeconds"), at(provider, int64(9), "spec,timeout")), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
		}},
		"http": {at(provider, "http://oke-sign.oke-sign.svc:8443/", "spec,url"), []string{
			`fails: oke-sign has the address "http://oke-sign.oke-sign.svc:8443/", and Gatekeeper asks only https addresses`,
			`-> kubectl patch provider oke-sign --type merge -p '{"spec":{"url":"https://oke-sign.oke-sign.svc:8443/v1/signatures"}}'`,
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
		}},
		"http, and the provider is elsewhere": {all(elsewhere, at(provider, "http://oke-sign.signing.svc:8443/", "spec,url")), []string{
			`fails: oke-sign has the address "http://oke-sign.signing.svc:8443/", and Gatekeeper asks only https addresses`,
			`-> kubectl patch provider oke-sign --type merge -p '{"spec":{"url":"https://oke-sign.signing.svc:8443/v1/signatures"}}'`,
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
		}},
		"no address": {at(provider, nil, "spec,url"), []string{
			`fails: oke-sign has the address "", and Gatekeeper asks only https addresses`,
			`-> kubectl patch provider oke-sign --type merge -p '{"spec":{"url":"https://oke-sign.oke-sign.svc:8443/v1/signatures"}}'`,
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
		}},
		"an invalid address, with an escape sequence": {at(provider, "https://\x1b[2J", "spec,url"), []string{
			`fails: oke-sign has the address "https://?[2J", and Gatekeeper asks only https addresses`,
			`-> kubectl patch provider oke-sign --type merge -p '{"spec":{"url":"https://oke-sign.oke-sign.svc:8443/v1/signatures"}}'`,
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
		}},
		"a Provider that is not active": {at(provider, []any{map[string]any{"active": false}}, "status,byPod"), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
			"fails: oke-sign is not active in a Pod of Gatekeeper",
			"-> kubectl get provider oke-sign -o yaml",
		}},
		"a Provider with an error": {at(provider, []any{map[string]any{"active": false, "errors": []any{map[string]any{"message": "bad caBundle"}}}}, "status,byPod"), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
			"fails: Gatekeeper cannot use oke-sign: bad caBundle",
			"-> kubectl get provider oke-sign -o yaml",
		}},
		"a Provider that Gatekeeper does not know": {at(provider, nil, "status"), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
			"warns: no Pod of Gatekeeper reports the Provider oke-sign",
			"-> kubectl get provider oke-sign -o yaml",
		}},
		"a status of hostile shape": {at(provider, []any{"a", map[string]any{"active": "no"}}, "status,byPod"), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
		}},
		"two Providers that take longer together than the webhook": {all(scans, at(provider, int64(4), "spec,timeout")), []string{
			"warns: oke-sign: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
			"warns: oke-sign-scans: the CA expires TIME",
			"-> renew the CA with cert-manager, or restart the provider if it makes its certificate",
			"warns: the time-outs of the Providers add up to 5 s, and the webhook's is 5 s: a denial may have no reason",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set validatingWebhookTimeoutSeconds=7",
		}},
		"Providers may not be listed": {unread("Provider", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"constraints may not be listed": {unread("constraints", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestProviderIsReady(t *testing.T) {
	told(t, "provider is ready", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: oke-sign: 2 Pods",
		}},
		"no Pod is ready": {all(at("Pod/oke-sign-1", "False", "status,conditions,0,status"), at("Pod/oke-sign-2", "False", "status,conditions,0,status")), []string{
			"fails: oke-sign: none of 2 Pods is ready, so every image of OCI Registry is denied",
			"-> kubectl -n oke-sign get pods; kubectl -n oke-sign logs deployment/oke-sign",
		}},
		"no Pod": {all(gone("Pod/oke-sign-1"), gone("Pod/oke-sign-2")), []string{
			"fails: oke-sign: none of 0 Pods is ready, so every image of OCI Registry is denied",
			"-> kubectl -n oke-sign get pods; kubectl -n oke-sign logs deployment/oke-sign",
		}},
		"one Pod is ready": {at("Pod/oke-sign-1", "False", "status,conditions,0,status"), []string{
			"warns: oke-sign: one Pod is ready, so a lost node leaves no Pod",
			"-> kubectl -n oke-sign scale deployment oke-sign --replicas=2",
		}},
		"a Pod that reports why it is not ready, with an escape sequence": {all(at("Pod/oke-sign-1", "False", "status,conditions,0,status"), func(w *world) { w.Unready = map[string]string{"oke-sign-1": "no principal\x1b[2J: 401"} }), []string{
			"warns: oke-sign-1 is not ready: no principal?[2J: 401",
			"-> kubectl -n oke-sign logs oke-sign-1",
			"warns: oke-sign: one Pod is ready, so a lost node leaves no Pod",
			"-> kubectl -n oke-sign scale deployment oke-sign --replicas=2",
		}},
		"a Pod without conditions": {at("Pod/oke-sign-1", nil, "status"), []string{
			"warns: oke-sign: one Pod is ready, so a lost node leaves no Pod",
			"-> kubectl -n oke-sign scale deployment oke-sign --replicas=2",
		}},
		"no Service": {gone("Service/oke-sign"), []string{
			"fails: oke-sign: nothing answers at oke-sign.oke-sign: the Service does not exist; every image of OCI Registry is denied",
			"-> kubectl -n oke-sign get service; the chart oke-sign creates it",
		}},
		"a Service without the port": {at("Service/oke-sign", int64(443), "spec,ports,0,port"), []string{
			"fails: oke-sign: nothing answers at oke-sign.oke-sign: the Service has no port 8443; every image of OCI Registry is denied",
			"-> kubectl -n oke-sign get service; the chart oke-sign creates it",
		}},
		"a Service that selects no Pods": {at("Service/oke-sign", nil, "spec,selector"), []string{
			"fails: oke-sign: nothing answers at oke-sign.oke-sign: the Service selects no Pods; every image of OCI Registry is denied",
			"-> kubectl -n oke-sign get service; the chart oke-sign creates it",
		}},
		"an address outside of the cluster": {func(w *world) { w.Backend = fmt.Errorf("sign.example.com %w", doctor.NoService) }, []string{
			"unknown: oke-sign: sign.example.com is no Service of the cluster, so doctor cannot check it",
			"-> check that address yourself; doctor checks addresses of the form SERVICE.NAMESPACE.svc",
		}},
		"Pods may not be listed": {func(w *world) { w.Backend = forbidden }, []string{
			"unknown: oke-sign: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestProviderCertificate(t *testing.T) {
	told(t, "provider certificate", map[string]row{
		"a sound cluster": {sound, []string{
			"warns: the certificate of oke-sign expires TIME",
			"-> renew it with cert-manager, or restart the provider if it makes its certificate",
		}},
		"one that lasts": {lasting, []string{
			"holds: oke-sign: until TIME",
		}},
		"for another name": {at(provider, "https://other.oke-sign.svc:8443/v1/signatures", "spec,url"), []string{
			"fails: Gatekeeper does not accept the certificate of oke-sign: x509: certificate is valid for oke-sign.oke-sign.svc, not other.oke-sign.svc",
			"-> renew it with cert-manager, or restart the provider if it makes its certificate",
		}},
		"of another CA": {otherCA, []string{
			"fails: Gatekeeper does not accept the certificate of oke-sign: x509: certificate signed by unknown authority",
			"-> renew it with cert-manager, or restart the provider if it makes its certificate",
		}},
		"an expired certificate": {func(w *world) { w.Now = w.Now.Add(100 * time.Hour) }, []string{
			"fails: Gatekeeper does not accept the certificate of oke-sign: x509: certificate has expired or is not yet valid: current time TIME is after TIME",
			"-> renew it with cert-manager, or restart the provider if it makes its certificate",
		}},
		"a Secret without a certificate": {at(secret, nil, "data,tls.crt"), []string{
			"unknown: oke-sign: it holds no certificate in PEM",
			"-> kubectl -n oke-sign get secrets, and renew the Secret that the provider's Pods mount",
		}},
		"a Secret with a text": {at(secret, "eA==", "data,tls.crt"), []string{
			"unknown: oke-sign: it holds no certificate in PEM",
			"-> kubectl -n oke-sign get secrets, and renew the Secret that the provider's Pods mount",
		}},
		"a Secret with a key before the certificate": {beside(secret, "PRIVATE KEY", "data", "tls.crt"), []string{
			"warns: the certificate of oke-sign expires TIME",
			"-> renew it with cert-manager, or restart the provider if it makes its certificate",
		}},
		"no Secret":                       {gone(secret), nil},
		"no CA: another check reports it": {at(provider, nil, "spec,caBundle"), nil},
		"the Secret may not be read": {unread("Secret", forbidden), []string{
			"unknown: oke-sign: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"Pods may not be listed: another check reports it": {func(w *world) { w.Backend = forbidden }, nil},
	})
}
