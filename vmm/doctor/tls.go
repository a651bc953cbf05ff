package doctor

import (
	"crypto/tls"
	"fmt"
	"time"

	"microvm/migration"
)

// soon is how long before its end a certificate is worth a word.
const soon = 14 * 24 * time.Hour

// lookAtTLS reads the files of TLS as migrate and receive do.
func lookAtTLS(dir string) []Check {
	if dir == "" {
		return nil
	}
	source, err := migration.SourceTLS(dir, "", nil)
	leaving := check("TLS, to send", "migrate --tls-dir", err, "")
	if err == nil {
		leaving = valid(leaving, func() (*tls.Certificate, error) { return source().GetClientCertificate(nil) })
	}
	dest, err := migration.DestinationTLS(dir, nil)
	arriving := check("TLS, to receive", "receive --tls-dir", err, "")
	if err == nil {
		arriving = valid(arriving, func() (*tls.Certificate, error) { return &dest().Certificates[0], nil })
	}
	if leaving.Status == Missing && arriving.Status == Missing {
		leaving.For, arriving.For = forMigrate, forMigrate // neither way
	}
	return []Check{leaving, arriving}
}

// valid says how long a certificate is.
func valid(c Check, own func() (*tls.Certificate, error)) Check {
	cert, err := own()
	if err != nil {
		return check(c.Name, c.For, err, "")
	}
	leaf := cert.Leaf
	c.Found = fmt.Sprintf("%q, until %s", leaf.Subject, leaf.NotAfter.Format(time.DateTime))
	if time.Until(leaf.NotAfter) < soon {
		c = c.warn(c.Found, "renew it: new files in place of the old are read for the next connection")
	}
	return c
}
