// Prints each field of the types of Kubernetes in which a Secret, or an image, can be named: kind, a tab, path.
// See README.md.
package main

import (
	"fmt"
	"reflect"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

var found = map[string]bool{}

// What holds no such field, or is the Secret itself.
var skipped = map[reflect.Type]bool{
	reflect.TypeOf(metav1.ObjectMeta{}): true,
	reflect.TypeOf(metav1.TypeMeta{}):   true,
	reflect.TypeOf(metav1.ListMeta{}):   true,
	reflect.TypeOf(corev1.Secret{}):     true,
}

var podSpec = reflect.TypeOf(corev1.PodSpec{})

func has(text, part string) bool { return strings.Contains(strings.ToLower(text), part) }

// walk follows one field. about: a field on the way there, or its type, is called after a Secret or an image.
func walk(kind, path string, t reflect.Type, about bool, above []reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer:
		walk(kind, path, t.Elem(), about, above)
	case reflect.Slice, reflect.Array:
		walk(kind, path+"[]", t.Elem(), about, above)
	case reflect.Map:
		walk(kind, path+"{}", t.Elem(), about, above)
	case reflect.String:
		if about {
			found[kind+"\t"+path] = true
		}
	case reflect.Struct:
		if skipped[t] || (t == podSpec && kind != "Pod") {
			return // of a template: the pod that is made of it is looked at
		}
		for _, one := range above {
			if one == t {
				return
			}
		}
		for i := range t.NumField() {
			field := t.Field(i)
			name := strings.Split(field.Tag.Get("json"), ",")[0]
			if path == "" && name == "status" {
				continue
			}
			inner := field.Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			below := strings.Trim(path+"."+name, ".")
			called := has(field.Name, "secret") || has(inner.Name(), "secret") || has(field.Name, "image")
			walk(kind, below, field.Type, about || called, append(append([]reflect.Type{}, above...), t))
		}
	}
}

func main() {
	for gvk, t := range scheme.Scheme.AllKnownTypes() {
		if gvk.Version != "__internal" && !strings.HasSuffix(gvk.Kind, "List") && !strings.HasSuffix(gvk.Kind, "Options") {
			walk(gvk.Kind, "", t, false, nil)
		}
	}
	lines := []string{}
	for line := range found {
		lines = append(lines, line)
	}
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, "\n"))
}
