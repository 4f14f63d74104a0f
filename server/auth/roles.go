package auth

import (
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// foreign are the services whose protos are not ours to annotate. Health is open: whoever probes it has no token, and it says no more than a port that answers.
// Reflection shows the schema of everything, so it wants somebody who may read.
var foreign = map[string]Role{
	"grpc.health.v1.Health":                    Anyone,
	"grpc.reflection.v1.ServerReflection":      Reader,
	"grpc.reflection.v1alpha.ServerReflection": Reader,
}

// requiredRoles reads the role that each method of the services needs from its descriptor. A service without a descriptor, or a method without a role, is an error that
// names it.
func requiredRoles(services map[string]grpc.ServiceInfo, descriptors *protoregistry.Files) (map[string]Role, error) {
	roles := map[string]Role{}
	var problems []error
	for service, info := range services {
		if role, ok := foreign[service]; ok {
			for _, method := range info.Methods {
				roles[fullMethod(service, method.Name)] = role
			}
			continue
		}
		found, err := descriptors.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			problems = append(problems, fmt.Errorf("service %s has no descriptor to read the roles of its callers from: %w", service, err))
			continue
		}
		described, ok := found.(protoreflect.ServiceDescriptor)
		if !ok {
			problems = append(problems, fmt.Errorf("%s is no service", service))
			continue
		}
		for _, method := range info.Methods {
			role := requiredRole(described.Methods().ByName(protoreflect.Name(method.Name)))
			if roleNames[role] == "" {
				problems = append(problems, fmt.Errorf("%s.%s does not say who may call it: set (eventrelay.v1.required_role) in its proto", service, method.Name))
			}
			roles[fullMethod(service, method.Name)] = role
		}
	}
	return roles, errors.Join(problems...)
}

// requiredRole is what a method's descriptor says; Anyone, which no method of ours may have, if it says nothing.
func requiredRole(method protoreflect.MethodDescriptor) Role {
	if method == nil {
		return Anyone
	}
	role, _ := proto.GetExtension(method.Options(), eventrelayv1.E_RequiredRole).(Role)
	return role
}

// fullMethod is the name of a method as calls bear it.
func fullMethod(service, method string) string { return "/" + service + "/" + method }
