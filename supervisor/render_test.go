package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/internal/consul"
	"switchback/internal/fault"
	"switchback/internal/secret"
)

func TestPropertiesAreEscapedTwice(t *testing.T) {
	for password, want := range map[string]string{
		"plain": `plain`,
		`a"b`:   `a\\"b`,
		`a\b`:   `a\\\\b`,
		"a\nb":  `a\\nb`,
		"ä€😀":   `\u00e4\u20ac\ud83d\ude00`,
		"a=b:#": `a=b:#`,
	} {
		v := consul.View{Values: consul.Values{SecurityProtocol: "SASL_SSL", SASLMechanism: "PLAIN"}}
		list, err := properties(settings{}, v, secret.Login{Username: "u", Password: secret.New(password)})
		require.NoError(t, err)
		got := propertyValue(list[len(list)-1].reveal())
		require.Equal(t, `org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="`+want+`";`, got)
	}
	require.Equal(t, `\ x`, propertyValue(" x"))
	_, err := properties(settings{}, consul.View{Values: consul.Values{SecurityProtocol: "SASL_SSL", SASLMechanism: "GSSAPI"}}, secret.Login{})
	require.ErrorIs(t, err, fault.ErrInvalid)
	list, err := properties(settings{}, consul.View{Values: consul.Values{SecurityProtocol: "PLAINTEXT", Bootstrap: "b"}}, secret.Login{})
	require.NoError(t, err)
	require.Len(t, list, 2)
}

func TestP39_WhatMustNotBeStarted(t *testing.T) {
	good := consul.View{Values: consul.Values{Cluster: "east", Bootstrap: "b"}, Epoch: 7, Desired: consul.Run}
	none := consul.View{Epoch: consul.Unknown}
	change := func(f func(v *consul.View)) consul.View { v := good; f(&v); return v }
	require.NoError(t, startable(good, none))
	require.NoError(t, startable(good, good))
	for name, c := range map[string]struct {
		view, last consul.View
		want       error
	}{
		"stop":                      {change(func(v *consul.View) { v.Desired = consul.Stop }), none, errNotDesired},
		"garbled desired":           {change(func(v *consul.View) { v.Desired = "pause" }), none, fault.ErrInvalid},
		"no epoch":                  {change(func(v *consul.View) { v.Epoch = consul.Unknown }), none, fault.ErrNotFound},
		"no bootstrap":              {change(func(v *consul.View) { v.Bootstrap = "" }), none, fault.ErrNotFound},
		"no credentials":            {change(func(v *consul.View) { v.SecurityProtocol = "SASL_SSL" }), none, fault.ErrNotFound},
		"an older epoch":            {change(func(v *consul.View) { v.Epoch = 6 }), good, fault.ErrStale},
		"two clusters at one epoch": {change(func(v *consul.View) { v.Cluster = "west" }), good, fault.ErrConflict},
	} {
		require.ErrorIs(t, startable(c.view, c.last), c.want, name)
	}
}
