package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"gopkg.in/yaml.v3"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

const pod = "csi.storage.k8s.io/"

// wanted is one object that the parameters ask for, and the file that it comes back as.
type wanted struct{ object, file string }

func answer(request *v1alpha1.MountRequest, asked *Asked) ([]*v1alpha1.File, error) {
	var attributes, secrets map[string]string
	var mode os.FileMode
	if err := errors.Join(
		json.Unmarshal([]byte(request.GetAttributes()), &attributes),
		json.Unmarshal([]byte(request.GetSecrets()), &secrets),
		json.Unmarshal([]byte(request.GetPermission()), &mode),
	); err != nil {
		return nil, fmt.Errorf("failed to unmarshal: %w", err)
	}
	if request.GetTargetPath() == "" {
		return nil, errors.New("missing target path")
	}
	if len(secrets) != 0 {
		return nil, errors.New("credentials came with the request")
	}
	served, err := readState()
	if err != nil {
		return nil, err
	}
	account, token, err := login(attributes, served)
	asked.Account, asked.Pod, asked.Token = account, attributes[pod+"pod.name"], token
	if err != nil {
		return nil, loginRefused(err)
	}
	objects, err := objectsOf(attributes)
	if err != nil {
		return nil, err
	}
	var files []*v1alpha1.File
	for _, item := range objects {
		asked.Objects = append(asked.Objects, item.object)
		if !slices.Contains(served.Allowed[account], item.object) {
			return nil, forbidden(account, item.object)
		}
		content, found := served.Secrets[item.object]
		if !found {
			return nil, notFound(item.object)
		}
		files = append(files, &v1alpha1.File{Path: item.file, Mode: int32(mode), Contents: []byte(content)})
	}
	return files, nil
}

// objectsOf reads the parameters as the vendor's provider does.
func objectsOf(attributes map[string]string) ([]wanted, error) {
	var found []wanted
	switch *shape {
	case "aws":
		if attributes["region"] == "" {
			return nil, errors.New("failed to retrieve region from node")
		}
		var objects []struct {
			Name string `yaml:"objectName"`
			Type string `yaml:"objectType"`
		}
		if err := yaml.Unmarshal([]byte(attributes["objects"]), &objects); err != nil {
			return nil, err
		}
		for _, item := range objects {
			if item.Type != "secretsmanager" {
				return nil, fmt.Errorf("Invalid objectType: %s", item.Type)
			}
			found = append(found, wanted{item.Name, strings.ReplaceAll(item.Name, "/", "_")})
		}
	case "azure":
		if attributes["keyvaultName"] == "" || attributes["tenantID"] == "" || attributes["clientID"] == "" {
			return nil, errors.New("keyvaultName, tenantID or clientID is not provided")
		}
		var list struct{ Array []string }
		if err := yaml.Unmarshal([]byte(attributes["objects"]), &list); err != nil {
			return nil, err
		}
		for _, text := range list.Array {
			var item struct {
				Name string `yaml:"objectName"`
				Type string `yaml:"objectType"`
			}
			if err := yaml.Unmarshal([]byte(text), &item); err != nil {
				return nil, err
			}
			if item.Type != "secret" {
				return nil, errors.New("Invalid vaultObjectTypes. Should be secret, key, or cert")
			}
			found = append(found, wanted{item.Name, item.Name})
		}
	case "gcp":
		var objects []struct {
			Name string `yaml:"resourceName"`
			Path string `yaml:"path"`
		}
		if err := yaml.Unmarshal([]byte(attributes["secrets"]), &objects); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		for _, item := range objects {
			found = append(found, wanted{item.Name, item.Path})
		}
	default:
		return nil, fmt.Errorf("no shape %q", *shape)
	}
	if len(found) == 0 {
		return nil, errors.New("no objects are asked for")
	}
	return found, nil
}

func loginRefused(err error) error {
	switch *shape {
	case "aws":
		return fmt.Errorf("operation error STS: AssumeRoleWithWebIdentity, StatusCode: 403, AccessDenied: %w", err)
	case "azure":
		return fmt.Errorf("failed to mount objects, error: invalid_client AADSTS700213: %w", err)
	}
	return status.Error(codes.PermissionDenied, fmt.Sprintf("unable to obtain auth for mount: %v", err))
}

func forbidden(account, object string) error {
	switch *shape {
	case "aws":
		return fmt.Errorf("Failed fetching secret %s: AccessDeniedException: %s is not authorized", object, account)
	case "azure":
		return fmt.Errorf("failed to get objectName:%s: RESPONSE 403: 403 Forbidden ERROR CODE: Forbidden", object)
	}
	return status.Errorf(codes.PermissionDenied, "Permission denied on resource %s", object)
}

func notFound(object string) error {
	switch *shape {
	case "aws":
		return fmt.Errorf("Failed fetching secret %s: ResourceNotFoundException: can't find it", object)
	case "azure":
		return fmt.Errorf("failed to get objectName:%s: RESPONSE 404 ERROR CODE: SecretNotFound", object)
	}
	return status.Errorf(codes.NotFound, "Secret %s not found", object)
}
