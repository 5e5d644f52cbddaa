package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pki writes the TLS keys and certificates of one cluster into a folder.
type pki struct{ dir string }

// authority is a certificate authority that signs leaves.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// subject is the owner of a certificate.
type subject struct {
	name, organization string
	hosts              []string // DNS names and IP addresses that it serves
}

const lifetime = 365 * 24 * time.Hour

func (p pki) file(name string) string { return filepath.Join(p.dir, name) }

// make writes all keys and certificates that etcd and Kubernetes present and trust.
func (p pki) make() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	ca, err := p.authority("ca")
	if err != nil {
		return err
	}
	frontProxy, err := p.authority("front-proxy-ca")
	if err != nil {
		return err
	}
	for _, leaf := range []struct {
		file string
		by   authority
		subject
	}{
		{"apiserver", ca, subject{name: "kube-apiserver", hosts: []string{"127.0.0.1", kubernetesIP, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}}},
		{"identity", ca, subject{name: "workload-identity", hosts: []string{kubernetesIP}}},
		{"admin", ca, subject{name: "admin", organization: "system:masters"}},
		{"controller-manager", ca, subject{name: "system:kube-controller-manager"}},
		{"scheduler", ca, subject{name: "system:kube-scheduler"}},
		{"front-proxy-client", frontProxy, subject{name: "front-proxy-client"}},
	} {
		if err := p.leaf(leaf.file, leaf.by, leaf.subject); err != nil {
			return err
		}
	}
	key, err := p.key("service-account")
	if err != nil {
		return err
	}
	return p.public("service-account", key.Public())
}

func (p pki) authority(name string) (authority, error) {
	key, err := p.key(name)
	if err != nil {
		return authority{}, err
	}
	certificate, err := p.certificate(name, authority{key: key}, &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}, key.Public())
	return authority{certificate, key}, err
}

func (p pki) leaf(file string, by authority, s subject) error {
	key, err := p.key(file)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: s.name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if s.organization != "" {
		template.Subject.Organization = []string{s.organization}
	}
	for _, host := range s.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	_, err = p.certificate(file, by, template, key.Public())
	return err
}

// certificate signs template and writes the result to name.crt. An authority without a
// certificate signs itself.
func (p pki) certificate(name string, by authority, template *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.Add(lifetime)
	parent := by.certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by.key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	if err := p.write(name+".crt", "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (p pki) key(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, p.write(name+".key", "PRIVATE KEY", der)
}

func (p pki) public(name string, key crypto.PublicKey) error {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return err
	}
	return p.write(name+".pub", "PUBLIC KEY", der)
}

func (p pki) write(name, kind string, der []byte) error {
	return os.WriteFile(p.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
